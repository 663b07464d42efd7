"""A soak: thousands of small explanations in fresh processes, under pressure from the collector, from four threads.

A lost hook would leave the plain gradient, which looks like any other map; so every single one is compared with the twin.
"""

import os
import subprocess
import sys

import pytest

THREADS = 4

SOAK = """
import gc, sys, threading
import torch
gc.set_threshold(1)
torch.set_num_threads(1)
import relume
from tests.reference import twin
from tests.helpers.random_networks import Random

count, rounds = map(int, sys.argv[1:])
kinds = ["clamp", "F.relu in place", "module", "leaky", "maximum"]
rules = {"guided_backprop": twin.guided, "deconvnet": twin.deconvnet, "gradient": twin.gradient}
cases = []
for i, block in enumerate(["skip after", "preactivation", "branches", "crelu", "nested"]):
    for seed in range(50):
        torch.manual_seed(seed)
        net = Random([(block, kinds[i]), ("batchnorm", "F.relu")], width=3).double().eval()
        x = torch.randn(1, 2, 5, 5, dtype=torch.float64)
        expected = {rule: twin.attribution(net, x, [i % 4], formula)[0] for rule, formula in rules.items()}
        if len({float(values.norm()) for values in expected.values()} - {0.0}) == 3:
            break
    else:
        raise AssertionError("no network on which the rules differ")
    cases.append((net, x, i % 4, expected))

wrong, done = [], []
def work():
    for i in range(rounds):
        net, x, target, expected = cases[i % len(cases)]
        e = relume.explain(net, x, target, list(expected))
        for rule, values in expected.items():
            done.append(rule)
            if (e[rule] - values).norm() > 1e-12 * values.norm():
                wrong.append((i, rule))

threads = [threading.Thread(target=work) for _ in range(count)]
for t in threads: t.start()
for t in threads: t.join()
print(len(done), len(wrong))
"""


@pytest.mark.slow
@pytest.mark.parametrize("process", range(3))
def test_thousands_of_explanations_under_pressure(process):
    soak(process, 250)


def test_some_explanations_under_pressure():
    soak(0, 15)


def soak(process, rounds):
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", SOAK, str(THREADS), str(rounds)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env=os.environ | {"PYTHONHASHSEED": str(process)},
    )
    assert result.returncode == 0, result.stderr
    done, wrong = map(int, result.stdout.split())
    assert done == THREADS * rounds * 3
    assert wrong == 0
