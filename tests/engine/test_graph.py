"""Where the ReLU hides: what the walk of the graph finds, and what it refuses."""

import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import relume
from relume import errors
from relume.engine import trace
from relume.engine.graph import between, hooked, survey, walk
from relume.engine.reading import Reading
from tests.reference import twin


class Net(nn.Module):
    """A convolution, whatever ``body`` does, a linear head."""

    def __init__(self, body, width=4):
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(width, 4)
        self.body = lambda x: body(self, x)

    def forward(self, x):
        return self.head(self.body(self.conv(x)).mean((2, 3)))


CASES = {
    "in place before a residual sum": lambda net, x: F.relu(x.clone(), inplace=True) + x,
    "in place after a residual sum": lambda net, x: F.relu(x * 2 + x.tanh(), inplace=True),
    "one module three times": lambda net, x: net.relu(net.relu(net.relu(x) - 0.2) - 0.1),
    "one module in two branches": lambda net, x: net.relu(x) - 2 * net.relu(-x),
    "pre-activation skip": lambda net, x: net.relu(x) * 3 + x,
    "pre-activation read later": lambda net, x: net.relu(x) - x.sigmoid() * 2,
}


@pytest.mark.parametrize("case", CASES)
def test_only_the_rectifiers_own_contribution_is_masked(case):
    net = Net(CASES[case]).double()
    x = torch.randn(3, 3, 7, 7, dtype=torch.float64)
    expected, _, _ = twin.attribution(net, x, [0, 1, 2], twin.guided)
    got = relume.GuidedBackpropagation(net).attribute(x, [0, 1, 2])
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


def test_crelu():
    net = Net(lambda net, x: torch.cat([net.relu(x), net.relu(-x)], 1), width=8).double()
    x = torch.randn(3, 3, 7, 7, dtype=torch.float64)
    expected, _, _ = twin.attribution(net, x, [0, 1, 2], twin.guided)
    torch.testing.assert_close(relume.GuidedBackpropagation(net).attribute(x, [0, 1, 2]), expected, rtol=1e-12, atol=1e-14)


class Named(nn.Module):
    """Modules named by index, names that merely contain "relu", a child that is None, ReLUs in the classifier only."""

    def __init__(self):
        super().__init__()
        self.prelude = nn.Tanh()  # "relu" is in the name, nothing rectifies
        self.relunit = nn.Linear(12, 12)
        self.aux = None
        self.register_module("AuxLogits", None)
        self.classifier = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(True), nn.Linear(8, 3))

    def forward(self, x):
        return self.classifier(self.relunit(self.prelude(x.flatten(1))))


def test_names_do_not_matter():
    net = Named().double()
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    e = relume.explain(net, x, 1, ["guided_backprop"])
    expected, _, _ = twin.attribution(net, x, [1, 1], twin.guided)
    torch.testing.assert_close(e["guided_backprop"], expected, rtol=1e-12, atol=1e-14)
    assert [(row.kind, row.count, row.guided) for row in e.coverage.rows] == [("relu", 2, True)]


# --- Refusals ---


class Custom(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, g):
        return g * (ctx.saved_tensors[0] > 0)


def test_a_custom_function_is_named_as_not_guided():
    net = Net(lambda net, x: Custom.apply(net.relu(x)))
    coverage = relume.coverage(net, torch.randn(1, 3, 5, 5))
    assert (coverage.guided, coverage.unguided, coverage.complete) == (1, 1, False)
    printed = str(coverage)
    assert "Custom" in printed
    assert "custom autograd.Function" in printed


def test_only_a_custom_function_is_an_error_that_names_it():
    net = Net(lambda net, x: Custom.apply(x))
    with pytest.raises(errors.NoRectifierError, match=r"plain gradient.*Custom"):
        relume.GuidedBackpropagation(net).attribute(torch.randn(1, 3, 5, 5))


def test_guided_relu_is_known_as_guided_by_itself():
    net = Net(lambda net, x: relume.GuidedReLU.apply(net.relu(x)))
    assert "brings its own guided backward" in str(relume.coverage(net, torch.randn(1, 3, 5, 5)))


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet", "guided_gradcam"])
def test_no_rectifier_is_an_error(method):
    net = Net(lambda net, x: x.tanh())
    with pytest.raises(errors.NoRectifierError, match="ask for 'gradient' or 'gradcam'"):
        relume.explain(net, torch.randn(1, 3, 5, 5), 0, [method], "conv")
    assert relume.explain(net, torch.randn(1, 3, 5, 5), 0, ["gradient", "gradcam"], "conv").coverage.guided == 0
    assert str(relume.coverage(net, torch.randn(1, 3, 5, 5))) == "no rectifier ran"


HIDING = {
    "in place on a view": (lambda net, x: x.clone().view(-1).relu_().view(x.shape), "in-place operation on a view"),
    "in place on a slice": (lambda net, x: _half_rectified(x.clone()), "in-place operation on a view"),
    "reentrant checkpoint": (lambda net, x: checkpoint(F.relu, x, use_reentrant=True), "use_reentrant=False"),
}


def _half_rectified(x):
    x[:, :2].relu_()
    return x


@pytest.mark.parametrize("case", HIDING)
def test_a_hidden_region_is_an_error_that_says_what_to_do(case):
    body, says = HIDING[case]
    net = Net(lambda net, x: net.relu(body(net, x)))
    with pytest.raises(errors.HiddenRegionError, match=says):
        relume.GuidedBackpropagation(net).attribute(torch.randn(1, 3, 5, 5))
    assert not relume.coverage(net, torch.randn(1, 3, 5, 5)).complete


def test_what_clamps_several_tensors_at_once_is_listed_as_not_guided():
    net = Net(lambda net, x: net.relu(torch._foreach_clamp_min([x], 0.0)[0]))
    coverage = relume.coverage(net, torch.randn(1, 3, 5, 5))
    assert (coverage.guided, coverage.unguided, coverage.complete) == (1, 1, False)
    assert "may be a rectifier written by hand" in str(coverage)


ARITHMETIC = {
    "choices between values": lambda x: torch.where(x > 0, x, x * 2) * x.sigmoid() + torch.minimum(x, -x),
    "a clamp at another bound": lambda x: x.clamp(max=3) * 2,
    "a square": lambda x: x * x,
    "twice itself": lambda x: x * (2 * x + 1),
    "a gate from elsewhere": lambda x: x * x.mean((2, 3), keepdim=True).sigmoid(),  # squeeze and excitation
    "a residual of a gate": lambda x: x + x.sigmoid(),
    "a gate that grows on both sides": lambda x: x * torch.tanh(x / 2 + 1),
    "two halves": lambda x: torch.cat([x[:, :2] * x[:, 2:4].sigmoid(), x[:, 2:]], 1),  # a gated linear unit
}


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_is_not_taken_for_a_rectifier(name):
    net = Net(lambda net, x: net.relu(ARITHMETIC[name](x)))
    assert relume.coverage(net, torch.randn(1, 3, 5, 5)).complete


VIEWS = {
    "clamp with tensors": (lambda v: v.clamp_(min=torch.zeros(())), errors.HiddenRegionError),
    "relu": (lambda v: v.relu_(), errors.HiddenRegionError),
    "clamp_min with a tensor": (lambda v: v.clamp_min_(torch.zeros(())), None),
    "mask": (lambda v: v.mul_(v > 0), None),
}


@pytest.mark.parametrize("name", VIEWS)
def test_in_place_on_a_view_is_refused_or_listed(name):
    change, refusal = VIEWS[name]

    def body(net, x):
        y = x.clone()
        change(y.view(-1))
        return net.relu(y)

    net, x = Net(body), torch.randn(1, 3, 5, 5)
    coverage = relume.coverage(net, x)
    assert not coverage.complete
    assert "in-place operation on a view" in str(coverage)
    if refusal:
        with pytest.raises(refusal):
            relume.GuidedBackpropagation(net).attribute(x, 0)


BROADCAST = {
    "maximum": lambda x: torch.maximum(x, torch.zeros(1, 1, 3, 3, dtype=x.dtype)),
    "maximum, promoted": lambda x: torch.maximum(x.float(), torch.zeros(1, 1, 3, 3, dtype=torch.float64)),
    "clamp": lambda x: x.clamp(min=torch.zeros(1, 1, 3, 3, dtype=x.dtype)),
}


@pytest.mark.parametrize("rule", ["gradient", "deconvnet", "guided_backprop"])
@pytest.mark.parametrize("name", BROADCAST)
def test_a_broadcast_or_promoted_input_is_guided_before_its_gradient_is_summed(name, rule):
    """``x`` of one pixel against a field of zeros: the rule belongs to each place, the sum comes after."""
    weight = torch.linspace(-1, 1, 9, dtype=torch.float64).view(3, 3)
    net = Net(lambda net, x: BROADCAST[name](x.mean((2, 3), keepdim=True)) * weight).double()
    expanded = Net(lambda net, x: F.relu(x.mean((2, 3), keepdim=True).expand(-1, -1, 3, 3)) * weight).double()
    expanded.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    formula = {"gradient": twin.gradient, "deconvnet": twin.deconvnet, "guided_backprop": twin.guided}[rule]
    expected, _, _ = twin.attribution(expanded, x, [1, 2], formula)
    got = relume.explain(net, x, [1, 2], [rule])[rule]
    single = "promoted" in name
    torch.testing.assert_close(got, expected, rtol=1e-5 if single else 1e-12, atol=1e-7 if single else 1e-14)


@pytest.mark.filterwarnings("ignore")  # of torch.cond, which compiles its branches
def test_a_higher_order_operation_is_refused():
    def body(net, x):
        return net.relu(torch.cond(x.sum() > 0, lambda y: y.relu() * 2, lambda y: y.relu() * 3, (x,)))

    with pytest.raises(errors.HiddenRegionError, match=r"torch.cond, map, scan"):
        relume.GuidedBackpropagation(Net(body)).attribute(torch.randn(1, 3, 5, 5), 0)


def test_a_slice_that_is_assigned_hides_nothing():
    def assign(net, x):
        y = x.clone()
        y[:, :2] = net.relu(x[:, 2:])
        return net.relu(y)

    net = Net(assign).double()
    x = torch.randn(1, 3, 5, 5, dtype=torch.float64)
    expected, _, _ = twin.attribution(net, x, [1], twin.guided)
    torch.testing.assert_close(relume.GuidedBackpropagation(net).attribute(x, 1), expected, rtol=1e-12, atol=1e-14)


CHECKPOINTED = {
    "relu": lambda y: F.relu(y) - y,
    "gelu": lambda y: F.gelu(y) - y,
    "leaky": lambda y: F.leaky_relu(y, 0.2) * y,
    "prelu": lambda y: F.prelu(y, torch.tensor([-0.5], dtype=y.dtype)),
    "clamp": lambda y: y.clamp(min=0) - y,
    "maximum": lambda y: torch.maximum(y, torch.zeros_like(y)) - y,
    "hardswish": F.hardswish,
}


@pytest.mark.parametrize("rule", ["gradient", "deconvnet", "guided_backprop"])
@pytest.mark.parametrize("name", CHECKPOINTED)
def test_non_reentrant_checkpoints_are_guided(name, rule):
    """Each look at a saved value of a checkpointed region recomputes it."""
    f = CHECKPOINTED[name]
    net = Net(lambda net, x: checkpoint(f, x, use_reentrant=False)).double()
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    formula = {"gradient": twin.gradient, "deconvnet": twin.deconvnet, "guided_backprop": twin.guided}[rule]
    plain = lambda y: net.head(f(net.conv(y)).mean((2, 3)))  # noqa: E731
    expected, _, _ = twin.attribution(plain, x, [1, 2], formula)
    e = relume.explain(net, x, [1, 2], [rule])
    torch.testing.assert_close(e[rule], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)  # of torch.compile itself
def test_a_compiled_part_is_refused_and_a_compiled_whole_is_unwrapped():
    inner = torch.compile(lambda y: F.relu(y) * 2, backend="aot_eager")
    x = torch.randn(1, 3, 5, 5)
    with pytest.raises(errors.HiddenRegionError, match="before torch.compile"):
        relume.GuidedBackpropagation(Net(lambda net, y: net.relu(inner(y)))).attribute(x)
    net = Net(lambda net, y: net.relu(y))
    whole = relume.explain(torch.compile(net, backend="aot_eager"), x, 0, ["guided_backprop", "gradcam"], "conv")
    assert torch.equal(whole["guided_backprop"], relume.GuidedBackpropagation(net).attribute(x, 0))


def test_a_score_cut_off_from_the_input_is_an_error():
    net = Net(lambda net, x: net.relu(x.detach()))
    with pytest.raises(errors.GraphError, match="does not depend on the input"):
        relume.GuidedBackpropagation(net).attribute(torch.randn(1, 3, 5, 5))


# --- The walk and the hooks themselves ---


def test_between_is_what_the_engine_runs():
    """Nodes off the way from score to input are not hooked: they would never run, and the count would fail."""
    x = torch.randn(4, requires_grad=True)
    other = torch.randn(4, requires_grad=True)
    y = (x.relu() + other.relu()).relu()
    end = torch.autograd.graph.get_gradient_edge(x).node
    names = [type(node).__name__ for node in between(y.grad_fn, [end])]
    assert names == ["ReluBackward0", "AddBackward0", "ReluBackward0"]
    assert len(survey(between(y.grad_fn, [end])).rectifiers) == 2


def test_a_walk_puts_producers_before_consumers():
    """Also where a node is met first from afar: a consumer's nearer edge must not be decided before it."""
    x = torch.randn(3, requires_grad=True)
    near = x.relu()
    far = near
    for _ in range(5):
        far = far.relu() + near
    order = {node: i for i, node in enumerate(walk((far * near).grad_fn))}
    for node, place in order.items():
        assert all(order[source] < place for source, _ in node.next_functions if source is not None)


def test_a_graph_deeper_than_the_recursion_limit():
    x = torch.ones(1, 1, requires_grad=True)

    class Deep(nn.Module):
        def forward(self, x):
            for _ in range(3000):
                x = x.relu()
            return x

    assert relume.coverage(Deep(), x).guided == 3000


def test_a_hook_that_does_not_run_is_an_error():
    """The count is real: hooked nodes that the pass leaves out make it fail."""
    x = torch.randn(4, requires_grad=True)
    y, unrelated = x.relu(), x.relu()
    found = survey([y.grad_fn, unrelated.grad_fn]).rectifiers
    with pytest.raises(errors.HookError, match="1 of 2 rectifiers"), hooked(found, relume.rules.guided):
        torch.autograd.grad(y.sum(), x)


def test_a_hook_that_runs_twice_is_an_error():
    x = torch.randn(4, requires_grad=True)
    y = x.relu()
    with pytest.raises(errors.HookError), hooked(survey([y.grad_fn]).rectifiers, relume.rules.guided):
        torch.autograd.grad(y.sum(), x, retain_graph=True)
        torch.autograd.grad(y.sum(), x)


def test_hooks_survive_a_collection_before_the_pass():
    """Nothing but the graph and :func:`hooked` holds the nodes when the collector runs."""
    x = torch.tensor([-1.0, 2.0], requires_grad=True)
    score = -x.relu().relu().sum()
    end = torch.autograd.graph.get_gradient_edge(x).node
    with hooked(survey(between(score.grad_fn, [end])).rectifiers, relume.rules.guided):
        gc.collect()
        (grad,) = torch.autograd.grad(score, x)
    assert torch.equal(grad, torch.zeros(2))


def test_a_graph_is_walked_and_surveyed_once_for_each_score(monkeypatch):
    walks, surveys = [], []
    monkeypatch.setattr(trace, "between", lambda *args: walks.append(args) or between(*args))
    monkeypatch.setattr(trace, "survey", lambda *args, **options: surveys.append(args) or survey(*args, **options))
    net = Net(lambda net, x: net.relu(x))
    e = relume.explain(net, torch.randn(2, 3, 5, 5), 1, ["deconvnet", "guided_backprop"], evidence="full")
    assert e.evidence.runner_up is not None
    assert len(walks) == len(surveys) == 2  # the class and the runner-up


def test_what_was_walked_goes_with_the_score():
    """The nodes that a score holds do not keep its graph: no reference cycle waits for the collector."""

    class Marker:
        pass

    graphs = []

    class Marked(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.marker = Marker()
            graphs.append(weakref.ref(ctx.marker))
            return x * 1

        @staticmethod
        def backward(ctx, g):
            return g

    gc.disable()
    try:
        run = trace.Trace.run(lambda x: Marked.apply(x.relu()).flatten(1), torch.randn(2, 3, 5, 5), Reading())
        score = run.score(1)
        run.coverage(score)
        run.grad(score, [run.images], relume.rules.guided)
        assert graphs[0]() is not None
        del run, score
        assert graphs[0]() is None
    finally:
        gc.enable()
