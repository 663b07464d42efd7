"""Activations written as formulas: guided as one rectifier, or listed; what is none stays as it is. Nothing is silent."""

import re
import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import relume
from relume import errors, rules
from relume.auditing import randomise
from relume.auditing.subject import Subject
from relume.checkup import check
from relume.engine.by_hand.formulas import Formulas
from relume.models.libraries import import_library
from tests.helpers.by_hand import (
    RULES,
    TARGETS,
    Convolutional,
    Expected,
    Linear,
    Once,
    build,
    by_hand,
    distance,
    images,
    outcome,
)
from tests.helpers.random_formulas import random_formula
from tests.reference import twin
from tests.reference.spellings import FUNCTIONS, MASKS, PER_CHANNEL, SPELLINGS, derivative, gelu, rectifier, relu, silu

NETWORKS = [Convolutional, Linear]
DOCS = Path(__file__).parents[2] / "docs"

#: Spellings of every kind, for what is not tried with all of them.
SOME = [
    "gelu_new",
    "quick_gelu",
    "x*tanh(softplus(x))",
    "log(1 + exp(x))",
    "(x + |x|)/2",
    "max(x, 0.1*x)",
    "x*relu6(x + 3)/6",
    "where(x > 0, x, exp(x) - 1)",
    "x*(x > 0).to(x)",
    "y[y < 0] = 0",
]


def explained(network, x, methods=("guided_backprop",), **options):
    return relume.explain(network, x, TARGETS, list(methods), **options)


def outcomes(table, kind, x=None):
    """What became of each spelling of ``table`` in one network."""
    x, found = images() if x is None else x, {}
    for name, spelling in table.items():
        network = build(kind, spelling.written)
        expected = Expected(network, spelling.written, spelling.function, x)
        found[name] = outcome(explained(network, x), expected, spelling.tolerance)
    return found


# --- The table ---


@pytest.mark.parametrize("kind", NETWORKS)
def test_each_spelling_is_guided_or_listed(kind):
    # the ReLUs of `relu(x) - 0.1*relu(-x)` are guided as they are: the map that they have in the twin too
    expected = {name: "untouched" if s.outcome == "its rectifiers" else s.outcome for name, s in SPELLINGS.items()}
    assert outcomes(SPELLINGS, kind) == expected


def test_the_table_of_the_docs_is_that_of_the_tests():
    """A row of docs/rules.md for each outcome, with the number of its spellings."""
    counts = {word: sum(s.outcome == word for s in SPELLINGS.values()) for word in ("guided", "listed", "its rectifiers")}
    assert counts == {"guided": 70, "listed": 5, "its rectifiers": 1}
    text = (DOCS / "rules.md").read_text()
    for name, spelling in SPELLINGS.items():
        assert re.search(rf"^\| `{re.escape(name.replace('|', chr(92) + '|'))}` \| {spelling.outcome}\b", text, re.MULTILINE), (
            name
        )


def test_constants_of_each_channel():
    found = outcomes(PER_CHANNEL, Convolutional)
    assert {found.pop("ACON-C"), found.pop("ACON-C, difference twice")} <= {"guided", "listed"}  # a swish, and a line beside it
    assert set(found.values()) == {"guided"}


@pytest.mark.parametrize("table", [FUNCTIONS, MASKS], ids=["functions", "masks"])
def test_what_is_no_rectifier_is_left_as_it_is(table):
    may_be_listed, x = {*MASKS, "random mask", "dropout"}, images()
    for name, function in table.items():
        network = build(Convolutional, function)
        e = explained(network, x)
        assert distance(e["guided_backprop"], Expected(network, function, None, x).untouched) <= 1e-12, name
        assert by_hand(e.coverage, guided=True) == 0, name
        assert e.coverage.unguided == 0 or name in may_be_listed, (name, str(e.coverage))


def test_a_swish_that_is_none_in_one_channel_is_not_guided():
    def swish(x):
        return x * torch.sigmoid(torch.tensor([1.0, 1.5, 0.0, -1.0], dtype=x.dtype)[:, None, None] * x)

    network = build(Convolutional, swish)
    assert outcome(explained(network, images()), Expected(network, swish, None, images())) in ("untouched", "listed")


# --- Methods and rules ---


@pytest.mark.parametrize("name", [*SOME, "squareplus: (x + sqrt(x*x + 4))/2", "x - x.clamp(max=0)", "x*(1 + sign(x))/2"])
def test_several_methods_in_one_call(name):
    """The deconvnet tells where an activation ends: ``(x + |x|)/2`` without its half would double it."""
    spelling, x = SPELLINGS[name], images()
    network = build(Convolutional, spelling.written)
    together = explained(network, x, [*RULES, "gradcam", "guided_gradcam"], layer="second")
    for method, rule in RULES.items():
        expected = Expected(network, spelling.written, spelling.function, x, rule).guided
        assert distance(together[method], expected) <= spelling.tolerance, method
        # alone the pass frees the graph as it goes
        assert torch.equal(explained(network, x, [method])[method], together[method])
    heat = explained(network, x, ["gradcam"], layer="second")["gradcam"]
    fine = twin.guided_gradcam(together["guided_backprop"], heat)
    torch.testing.assert_close(together["guided_gradcam"], fine, rtol=1e-10, atol=1e-14)


def _with_output(grad, local):
    """A rule with a threshold on activation times gradient, as RectGrad's."""
    return 2 * local.pull(grad * (local.output * grad > 0)) - local.where_active(local.pull_positive(grad))


def _without_output(grad, local):
    return 2 * local.pull(grad * local.active) - local.where_active(local.pull_positive(grad))


@pytest.mark.parametrize("rule", [_with_output, _without_output])
@pytest.mark.parametrize("name", SOME)
def test_a_users_rule_gets_output_activity_and_derivative(name, rule):
    spelling, x = SPELLINGS[name], images()
    network = build(Convolutional, spelling.written)

    class Ruled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, f):
            y = f(x)
            ctx.save_for_backward(y, derivative(f)(x))
            return y.clone()

        @staticmethod
        def backward(ctx, g):
            y, slope = ctx.saved_tensors
            chosen = y * g > 0 if rule is _with_output else y > 0
            return slope * (2 * g * chosen - g * (g > 0) * (y > 0)), None

    def plainly(x):
        y = Ruled.apply(network.norm(network.first(x)), spelling.function)
        y = network.third(Ruled.apply(network.second(y), relu)) + y
        return network.head(Ruled.apply(y, spelling.function)).mean((2, 3))

    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(plainly(leaf)[[0, 1], TARGETS].sum(), leaf)
    assert distance(relume.Backpropagation(network, rule).attribute(x, TARGETS), expected) <= spelling.tolerance


def test_rules_for_the_relu_family_alone():
    """A ReLU by hand is of the family, a GELU by hand is not: listed as excluded, its map untouched."""
    x = images()
    for name, guided in {"(x + |x|)/2": True, "x*(x > 0).float()": True, "gelu_new": False, "max(x, 0.1*x)": False}.items():
        spelling = SPELLINGS[name]
        network = build(Convolutional, spelling.written)
        e, expected = explained(network, x, rectifiers="relu"), Expected(network, spelling.written, spelling.function, x)
        assert distance(e["guided_backprop"], expected.guided if guided else expected.untouched) <= 1e-12, name
        assert e.coverage.complete is guided, name


def test_smoothing():
    spelling, x = SPELLINGS["gelu_new"], images()
    smooth = relume.Smooth("guided_backprop", samples=4)
    one, other = (build(Convolutional, f) for f in (spelling.written, lambda x: F.gelu(x, approximate="tanh")))
    key = "smooth_guided_backprop"
    assert distance(explained(one, x, [smooth])[key], explained(other, x, [smooth])[key]) <= 1e-12


def test_randomised_weights():
    """The audit finds the activation again in each randomised network."""
    x = images()
    results = [
        randomise(Subject.of(build(Convolutional, f), x, TARGETS, method="guided_backprop"))
        for f in (SPELLINGS["x*sigmoid(x)"].written, F.silu)
    ]
    torch.testing.assert_close(*(torch.as_tensor(result.stages) for result in results), rtol=1e-6, atol=1e-12)


def test_the_checkup_names_each_by_its_module():
    class Activation(nn.Module):
        def forward(self, x):
            return SPELLINGS["gelu_python"].written(x)

    network = nn.Sequential(nn.Conv2d(3, 4, 3), Activation(), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()
    checkup = check(network, images()[:1])
    assert checkup.coverage.complete
    assert by_hand(checkup.coverage, guided=True) == 1
    assert str(checkup.coverage.rows[0]) == "1 GELU written by hand in 1 guided"


# --- Forms of a network ---


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_narrower_dtypes(dtype, kind):
    """Guided up to the dtype's own error, or listed; the twin is of the same weights in float64."""
    for name in SOME:
        spelling, x = SPELLINGS[name], images(dtype)
        network = build(kind, spelling.written, dtype)
        e = explained(network, x)
        expected = Expected(network.double(), spelling.written, spelling.function, x.double())
        found = outcome(e, expected, 2e-6 if dtype == torch.float32 else 0.1)
        assert found == "guided" or (found == "listed" and dtype == torch.bfloat16), (name, found)


@pytest.mark.parametrize("name", SOME)
def test_autocast(name):
    spelling, x = SPELLINGS[name], images(torch.float32)
    network = build(Convolutional, spelling.written, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        e = explained(network, x)
    expected = Expected(network.double(), spelling.written, spelling.function, x.double())
    assert outcome(e, expected, 0.1) in ("guided", "listed")


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("form", ["checkpointed", "traced", "exported"])
def test_forms_whose_functions_are_not_called_by_name(form):
    for name in SOME:
        spelling, x = SPELLINGS[name], images()
        network = build(Convolutional, spelling.written)
        expected = Expected(network, spelling.written, spelling.function, x)
        if form == "checkpointed":
            network.activation = lambda x, f=spelling.written: checkpoint(f, x, use_reentrant=False)
        elif form == "traced":
            network = torch.jit.trace(network, x, check_trace=False)
        else:
            network = torch.export.export(network, (x,)).module()
        found = outcome(explained(network, x), expected, spelling.tolerance)
        assert found == "guided", name


@pytest.mark.parametrize("name", SOME)
def test_training_mode_channels_last_and_callables(name):
    spelling, x = SPELLINGS[name], images()
    network = build(Convolutional, spelling.written)
    expected = Expected(network, spelling.written, spelling.function, x)
    forms = {
        "training": (build(Convolutional, spelling.written).train(), x),
        "channels last": (network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)),
        "callable": (network.forward, x),
        "one image of two": (network, x[[0, 0]]),
    }
    for form, (model, given) in forms.items():
        if form == "one image of two":
            first = explained(network, given)["guided_backprop"][:1]
            alone = relume.explain(network, x[:1], TARGETS[:1], ["guided_backprop"])["guided_backprop"]
            assert distance(alone, first) <= 1e-11
        else:
            assert outcome(explained(model, given), expected, spelling.tolerance) == "guided", form


def test_threads_do_not_meet():
    networks = {name: build(Convolutional, SPELLINGS[name].written) for name in SOME}
    alone, together = {name: explained(net, images()) for name, net in networks.items()}, {}

    def run(names):
        for name in names:
            together[name] = explained(networks[name], images())

    threads = [threading.Thread(target=run, args=(SOME[i::3],)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, e in alone.items():
        assert torch.equal(e["guided_backprop"], together[name]["guided_backprop"]), name
        assert str(e.coverage) == str(together[name].coverage)


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("name", SOME)
def test_prepared_networks(name, lean):
    spelling, x = SPELLINGS[name], images()
    network = build(Convolutional, spelling.written)
    expected = Expected(network, spelling.written, spelling.function, x)
    found = outcome(explained(relume.prepare(network, x, lean=lean), x), expected, max(spelling.tolerance, 1e-10))
    assert found == "guided", found


def test_folding_sees_one_forward_pass_of_two():
    prepared = relume.prepare(build(Convolutional, lambda x: x * torch.sigmoid(x)), images())
    assert (list(prepared.preparation.folded), dict(prepared.preparation.kept)) == (["norm"], {})


def test_a_network_that_looks_at_its_own_values():
    network = build(Convolutional, lambda x: x * torch.sigmoid(x) if not torch.equal(x, -x) and x.sum().item() else x)
    assert outcome(explained(network, images()), Expected(network, network.activation, silu, images())) == "guided"


# --- What may go wrong, and did on the way ---


def _without_gradient(x):
    with torch.no_grad():
        mask = x > 0
    return x * mask


MASKS_FROM_ELSEWHERE = {
    "of the data": (lambda x: x * (x.data > 0).to(x), relu, "guided"),
    "without gradient": (_without_gradient, relu, "guided"),
    "by NumPy": (lambda x: x * torch.from_numpy((x.detach().numpy() > 0).astype("float64")), relu, "listed"),
    "above the mean": (lambda x: x * (x > x.detach().mean()).to(x), None, "listed"),
    "by an operation that is not followed": (lambda x: x * torch.bucketize(x.detach(), x.new_zeros(1)), relu, "listed"),
    "of another function": (lambda x: x * torch.sigmoid(x).detach(), None, "listed"),
    "of halves": (lambda x: torch.cat([x[:, :2] * torch.sigmoid(x[:, :2]), x[:, 2:]], 1), silu, "listed"),
    "of other halves": (lambda x: torch.cat([x[:, :2] * torch.sigmoid(x[:, 2:]), x[:, 2:]], 1), None, "untouched"),
    "of a view": (lambda x: x * (x.flatten(1) > 0).view_as(x), relu, "listed"),
}


@pytest.mark.parametrize("case", MASKS_FROM_ELSEWHERE)
def test_where_a_mask_comes_from_is_seen_or_listed(case):
    written, function, expected = MASKS_FROM_ELSEWHERE[case]
    network = build(Convolutional, written)
    assert outcome(explained(network, images()), Expected(network, written, function, images())) == expected


def test_a_checkpointed_activation_in_several_passes():
    """Inside one group of looks each saved value may be unpacked once, here one that two nodes saved."""
    network = build(Convolutional, lambda x: checkpoint(lambda y: y * torch.sigmoid(y) * 1.0, x, use_reentrant=False))
    e = explained(network, images(), [*RULES])
    for method, rule in RULES.items():
        assert distance(e[method], Expected(network, silu, silu, images(), rule).guided) <= 1e-12


class Gated(Once):
    """A SiLU by hand whose gate is a layer, and whose product is one too."""

    def __init__(self, activation=None):
        super().__init__(activation or (lambda x: self.product(x * self.gate(x))))
        self.gate, self.product = nn.Sigmoid(), nn.Identity()


@pytest.mark.parametrize("layer", ["first", "gate", "product"])
def test_a_watched_layer_in_or_behind_it_hides_nothing(layer):
    network = build(Gated, None)
    expected = Expected(network, network.activation, silu, images()).guided
    e = explained(network, images(), ["guided_backprop", "guided_gradcam"], layer=layer)
    assert distance(e["guided_backprop"], expected) <= 1e-12
    assert by_hand(e.coverage, guided=True) == 1


def test_a_gradient_at_an_inner_value_is_refused():
    """Asked for at the gate itself, the rule has no whole activation to be applied to."""
    network = build(Gated, None)
    method = relume.Method(
        "inner", frozenset({("layer", rules.guided), ("input", rules.guided)}), lambda g: g.inputs[rules.guided]
    )
    with pytest.raises(errors.LayerError, match="in the middle of a SiLU written by hand"):
        explained(network, images(), [method], layer="gate")


@pytest.mark.parametrize("scale", [1e-3, 30, 300])
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_range_of_the_data_decides_nothing(kind, scale):
    """Near zero a SiLU is a line; far away a softplus by hand is one too."""
    names = ["gelu_new", "x*sigmoid(x)", "max(x, 0.1*x)", "squareplus: (x + sqrt(x*x + 4))/2", "(x + |x|)/2", "y[y < 0] = 0"]
    table = {name: SPELLINGS[name] for name in names}
    assert set(outcomes(table, kind, images(scale=scale)).values()) == {"guided"}


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_mask_of_ones_is_not_taken_for_no_mask():
    """Where all values are positive, a mask tells nothing, and its comparison does."""
    spelling, x = SPELLINGS["x*(x > 0).float()"], images()

    class Positive(Once):
        def forward(self, x):
            return self.head(F.relu(self.second(self.activation(self.first(x) ** 2 + 0.1)))).mean((2, 3))

    network = build(Positive, spelling.written)
    expected = Expected(network, spelling.written, relu, x)
    assert outcome(explained(network, x), expected) == "guided"


def test_scalars_inside_of_compound_operations():
    """``ndtr`` is one call and several nodes, with constants that are numbers, not tensors."""
    table = {name: SPELLINGS[name] for name in ("x*ndtr(x)", "x*0.5*(1 + tanh(x/2))", "-logsigmoid(-x)")}
    assert set(outcomes(table, Convolutional).values()) == {"guided"}


def test_the_memory_of_a_mask_that_is_gone_lends_it_nothing():
    """A comparison with zero is made and dropped; a random mask may then lie where it lay."""

    def mask(x):
        for _ in range(20):
            share = (x > 0).to(x).mean()
            drawn = (torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) > 0.5).to(x)
            x = x * drawn + 0 * share
        return x

    network = build(Convolutional, mask)
    assert outcome(explained(network, images()), Expected(network, mask, None, images())) in ("untouched", "listed")


@pytest.mark.parametrize("slope", [0.1, 0.25, 0.01])
def test_a_constant_is_not_rounded_away_in_bfloat16(slope):
    x = images(torch.bfloat16)
    for written in (lambda x: torch.max(x, slope * x), lambda x: torch.where(x > 0, x, slope * x)):
        network = build(Convolutional, written, torch.bfloat16)
        e = explained(network, x)
        expected = Expected(network.double(), written, lambda x: torch.where(x > 0, x, slope * x), x.double())
        assert outcome(e, expected, 0.1) in ("guided", "listed")


NEIGHBOURS = {
    "a GELU into a SiLU": (["gelu_python", "x*sigmoid(x)"], [gelu, silu]),
    "a SiLU into a softplus": (["x/(1 + exp(-x))", "log1p(exp(x))"], None),
    "a ReLU into a leaky one": (["(x + |x|)/2", "max(x, 0.1*x)"], None),
    "a ReLU by its mask into a GELU": (["x*(x > 0).float()", "gelu_new"], None),
}


@pytest.mark.parametrize("case", NEIGHBOURS)
@pytest.mark.parametrize("rule", ["deconvnet", "guided_backprop"])
def test_neighbours_are_not_taken_for_one(case, rule):
    names, functions = NEIGHBOURS[case]
    first, second = (SPELLINGS[name] for name in names)
    one, other = functions or (first.function, second.function)
    network = build(Convolutional, lambda x: second.written(first.written(x)))
    e = explained(network, images(), [rule])
    network.activation = lambda x: rectifier(other, RULES[rule])(rectifier(one, RULES[rule])(x))
    expected = twin.attribution(network, images(), TARGETS, RULES[rule])[0]
    assert distance(e[rule], expected) <= 1e-12
    assert by_hand(e.coverage, guided=True) == 4


@pytest.mark.parametrize("before", [True, False])
def test_a_neighbour_of_the_table_keeps_its_own(before):
    written = SPELLINGS["x*sigmoid(x)"].written
    network = build(Convolutional, lambda x: written(F.relu(x)) if before else F.relu(written(x)))
    hand = rectifier(silu, twin.guided)
    plain = rectifier(relu, twin.guided)
    e = explained(network, images())
    network.activation = lambda x: hand(plain(x)) if before else plain(hand(x))
    assert distance(e["guided_backprop"], twin.attribution(network, images(), TARGETS, twin.guided)[0]) <= 1e-12
    assert (by_hand(e.coverage, guided=True), e.coverage.guided) == (2, 5)


def test_an_inner_value_that_others_use_is_not_hidden():
    """``sigmoid(x)`` leaves the SiLU by hand by a way of its own: listed, or guided with that way untouched."""

    def leaking(x):
        gate = torch.sigmoid(x)
        return x * gate + 3 * gate * gate.mean((2, 3), keepdim=True)

    network = build(Convolutional, leaking)
    e, expected = explained(network, images()), Expected(network, leaking, None, images())
    assert outcome(e, expected) == "listed"


# --- Random formulas ---


SEEDS = [range(200), pytest.param(range(200, 400), marks=pytest.mark.slow)]


@pytest.mark.parametrize("seeds", SEEDS)
def test_a_random_formula_is_recovered_as_it_is(monkeypatch, seeds):
    """What is judged a rectifier has, on the grid, the values of a part of the formula, or of a part and a factor in a step."""
    recovered, judge = [], Formulas.judge

    def judged(formulas, end, source):
        verdict = judge(formulas, end, source)
        if verdict.rectifies:
            recovered.append((formulas.values(source, source).flatten(), formulas.values(end, source).flatten()))
        return verdict

    monkeypatch.setattr(Formulas, "judge", judged)
    count = 0
    for seed in seeds:
        formula = random_formula(seed)
        recovered.clear()
        explained(build(Once, formula), images())
        parts = [formula.function(source, end) for end in range(1, len(formula.steps)) for source in range(end)]
        for grid, values in recovered:
            count += 1
            assert any(_is_function(part, grid, values * factor) for part in parts for factor in (1, 10)), (seed, str(formula))
    assert count > 50


def _is_function(part, grid, values):
    try:
        return torch.allclose(part(grid), values, rtol=1e-12, atol=1e-12, equal_nan=True)
    except KeyError:  # it takes more than the source
        return False


@pytest.mark.parametrize("seeds", SEEDS)
def test_random_formulas(seeds):
    """A part that is guided is a rectifier, and the map its twin's; if nothing is, the map is untouched."""
    x, counts = images(), {"guided": 0, "listed": 0, "untouched": 0}
    for seed in seeds:
        formula = random_formula(seed)
        network = build(Once, formula)
        untouched = Expected(network, formula, None, x).untouched
        if not untouched.isfinite().all():
            continue
        e = explained(network, x)
        got, count = e["guided_backprop"], by_hand(e.coverage, guided=True)
        counts["guided" if count else "listed" if e.coverage.unguided else "untouched"] += 1
        for windows in formula.choices(count):
            network.activation = lambda x, f=formula, w=windows: f(x, w, lambda part: rectifier(part, twin.guided))
            if distance(got, twin.attribution(network, x, TARGETS, twin.guided)[0]) <= 1e-10:
                break
        else:
            pytest.fail(f"seed {seed}, {formula}: no part of it as one rectifier gives this map\n{e.coverage}")
    assert counts["guided"] > 20
    assert counts["untouched"] > 50


# --- Transformers ---


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function


@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_every_activation_of_transformers_in_a_vision_transformer():
    transformers = import_library("transformers")
    table = transformers.activations.ACT2FN
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.ViTConfig(**size, image_size=8, patch_size=4, num_labels=3)
    torch.manual_seed(3)
    model, x = transformers.ViTForImageClassification(config).double().eval(), images().repeat(1, 1, 2, 2)[..., :8, :8]
    blocks = [
        module for module in model.modules() if hasattr(module, "activation_fn") or hasattr(module, "intermediate_act_fn")
    ]
    attribute = "activation_fn" if hasattr(blocks[0], "activation_fn") else "intermediate_act_fn"
    assert len(blocks) == 2
    none, by_formula = {"laplace", "tanh", "sigmoid", "linear"}, set()
    for name in [name for name in table if name != "xielu"]:  # falls where it is positive and learns by how much: listed
        activation = table[name].double() if isinstance(table[name], nn.Module) else table[name]
        function = {"prelu": lambda x: torch.where(x > 0, x, 0.25 * x)}.get(name, activation)

        def network(images, chosen=activation):
            for block in blocks:
                setattr(block, attribute, chosen)
            return model(images).logits

        guided = Applied(rectifier(function, twin.guided))
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(network(leaf, activation if name in none else guided)[[0, 1], TARGETS].sum(), leaf)
        if name in none:
            with pytest.raises(errors.NoRectifierError):
                explained(network, x)
            continue
        e = explained(network, x)
        by_formula |= {name} if by_hand(e.coverage, guided=True) else set()
        assert e.coverage.complete, (name, str(e.coverage))
        assert distance(e["guided_backprop"], expected) <= 1e-11, name
    assert by_formula >= {"gelu_new", "gelu_fast", "gelu_accurate", "gelu_python_tanh", "gelu_python", "quick_gelu"}
