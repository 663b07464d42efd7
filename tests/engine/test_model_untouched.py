"""The model is not ours: it is left as it was found, whatever is raised in the middle."""

import gc
import threading

import psutil
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import relume
from tests.helpers.networks import Small, assert_unchanged, snapshot

ALL = list(relume.METHODS)


@pytest.fixture
def net():
    net = Small()
    net.conv1.weight.grad = torch.ones_like(net.conv1.weight)
    net.conv2.bias.requires_grad_(False)
    net.body[0].register_forward_hook(lambda *_: None)
    net.train()
    net.bn1.eval()  # mixed flags must come back mixed
    return net


def test_a_call_leaves_everything_as_it_was(net):
    before = snapshot(net)
    relume.explain(net, torch.randn(2, 3, 8, 8), None, ALL, net.body)
    assert_unchanged(before, snapshot(net))


class Bang(RuntimeError):
    pass


def _bang(*_):
    raise Bang


@pytest.mark.parametrize("where", ["forward", "layer", "target", "rule", "backward"])
def test_an_exception_anywhere_leaves_everything_as_it_was(net, where):
    class BangBackward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, g):
            raise Bang

    target, methods = 0, [*ALL]
    if where == "forward":
        net.head[1].register_forward_hook(_bang)
    elif where == "layer":
        net.body.register_forward_hook(_bang)
    elif where == "target":
        target = _bang
    elif where == "rule":
        from relume.methods.base import backpropagation

        methods.append(backpropagation("bang", _bang))
    else:
        net.bn2.register_forward_hook(lambda _m, _a, out: BangBackward.apply(out))
    before = snapshot(net)
    x = torch.randn(2, 3, 8, 8)
    with pytest.raises(Bang):
        relume.explain(net, x, target, methods, "body")
    assert_unchanged(before, snapshot(net))
    assert x.grad is None


def test_the_callers_tensors_are_left_alone():
    net = Small()
    base = torch.randn(2, 3, 8, 8, requires_grad=True)
    base.grad = torch.full_like(base, 7.0)
    x = base * 1
    version = x._version
    first = relume.GuidedBackpropagation(net).attribute(x, 1)
    second = relume.GuidedBackpropagation(net).attribute(x, 1)
    assert torch.equal(first, second)
    assert torch.equal(base.grad, torch.full_like(base, 7.0))
    assert (x.requires_grad, x._version, x.is_leaf) == (True, version, False)
    assert torch.equal(first, relume.GuidedBackpropagation(net).attribute(x.detach(), 1))


def test_a_network_that_begins_in_place_overwrites_nothing_of_the_callers():
    net = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(12, 3), nn.ReLU(inplace=True))
    x = torch.randn(2, 3, 2, 2)
    kept = x.clone()
    guided = relume.GuidedBackpropagation(net).attribute(x, 0)
    assert torch.equal(x, kept)
    assert not guided[x <= 0].any()


def test_training_mode_is_explained_as_evaluation_and_stays():
    net = Small().double()
    x = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    expected = {m: v.clone() for m, v in relume.explain(net.eval(), x, None, ALL, "body").maps.items()}
    net.train()
    before = snapshot(net)
    e = relume.explain(net, x, None, ALL, "body")
    for method, values in expected.items():
        assert torch.equal(e[method], values), method
    assert_unchanged(before, snapshot(net))


def test_an_overridden_eval_is_not_called():
    """Some networks merge weights in place when they change mode."""

    class Merging(Small):
        def train(self, mode=True):
            raise AssertionError("the mode of the caller's model was changed")

    net = Merging.__new__(Merging)
    Small.__init__(net)
    assert relume.GuidedBackpropagation(net).attribute(torch.randn(1, 3, 8, 8)).any()
    assert net.training


class _ConvolutionBackwards(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.masks = []
        self.ops = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.ops.append(func)
        if func is torch.ops.aten.convolution_backward.default:
            self.masks.append(args[-1])
        return func(*args, **(kwargs or {}))


def test_no_weight_gradient_is_computed():
    net = Small()
    with _ConvolutionBackwards() as seen:
        relume.explain(net, torch.randn(2, 3, 8, 8), None, ALL, "conv2")
    assert len(seen.masks) >= 3 * 3
    assert all(mask[1:] == [False, False] for mask in seen.masks)
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize(("count", "few", "mebibytes"), [(200, 100, 8), pytest.param(2000, 200, 20, marks=pytest.mark.slow)])
def test_no_growth_over_many_calls(count, few, mebibytes):
    net, x = Small(), torch.randn(1, 3, 8, 8)
    process = psutil.Process()

    def calls(count):
        for _ in range(count):
            relume.explain(net, x, None, ALL, "body")
        gc.collect()
        return process.memory_info().rss, len(gc.get_objects())

    calls(50)
    memory, objects = calls(50)
    later_memory, later_objects = calls(count)
    assert later_objects - objects < few
    assert later_memory - memory < mebibytes * 2**20
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_inside_no_grad_and_inference_mode_and_on_tensors_made_there(around):
    net = Small()
    with around():
        x = torch.randn(2, 3, 8, 8)
        inside = relume.explain(net, x, 1, ALL, "body")
    outside = relume.explain(net, x.clone(), 1, ALL, "body")
    on_it = relume.explain(net, x, 1, ALL, "body")
    for method in ALL:
        assert torch.equal(inside[method], outside[method])
        assert torch.equal(on_it[method], outside[method])
        assert not inside[method].is_inference()


def test_a_network_made_under_inference_mode():
    with torch.inference_mode():
        net = Small()
    assert relume.GuidedBackpropagation(net).attribute(torch.randn(1, 3, 8, 8)).any()


# --- Threads ---


def test_another_thread_sees_nothing():
    """While explanations run, the same model trains along in another thread: same losses, same gradients as alone."""
    net = Small().train()
    x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    net.head[2].p = 0.0  # the dropout's randomness would differ by itself

    def loss_and_gradients():
        statistics = {k: v.clone() for k, v in net.named_buffers()}
        loss = F.cross_entropy(net(x), y)
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for k, v in net.named_buffers():
                v.copy_(statistics[k])
        return [loss.detach(), *gradients]

    alone = loss_and_gradients()
    stop = threading.Event()
    faults = []

    def explain_on():
        try:
            while not stop.is_set():
                relume.explain(net, x, None, ALL, "body")
        except Exception as fault:  # noqa: BLE001 - shown by the assertion below
            faults.append(fault)

    thread = threading.Thread(target=explain_on)
    thread.start()
    try:
        for _ in range(50):
            for a, b in zip(alone, loss_and_gradients(), strict=True):
                assert torch.equal(a, b)
            assert net.training
            assert not any(m._forward_hooks or m._backward_hooks for m in net.modules())
    finally:
        stop.set()
        thread.join()
    assert not faults


def test_four_threads_with_four_rules_agree_with_one_after_the_other():
    net = Small().double()
    inputs = [torch.randn(2, 3, 8, 8, dtype=torch.float64) for _ in range(4)]
    rules = ["gradient", "deconvnet", "guided_backprop", "guided_gradcam"]
    one_by_one = [relume.explain(net, x, 1, [rule], "body")[rule] for x, rule in zip(inputs, rules, strict=True)]
    results = [[] for _ in rules]

    def work(i):
        for _ in range(50):
            results[i].append(relume.explain(net, inputs[i], 1, [rules[i]], "body")[rules[i]])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for expected, got in zip(one_by_one, results, strict=True):
        assert len(got) == 50
        assert all(torch.equal(expected, g) for g in got)
