"""Batches, targets, inputs and outputs of every form."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import relume
from relume import errors
from relume.checkup import check
from relume.evaluation import Sample, evaluate
from relume.methods.base import backpropagation
from tests.helpers.networks import Small, TwoInputs
from tests.reference import twin

ALL = list(relume.METHODS)


@pytest.fixture
def net():
    return Small(classes=6).double().eval()


@pytest.fixture
def x():
    return torch.randn(3, 3, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("method", ALL)
def test_a_batch_equals_its_samples_one_by_one(net, x, method):
    batch = relume.explain(net, x, [4, 0, 2], [method], "body")
    for i, target in enumerate([4, 0, 2]):
        alone = relume.explain(net, x[i : i + 1], target, [method], "body")
        torch.testing.assert_close(batch[method][i], alone[method][0], rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(batch.saliency(method)[i], alone.saliency(method)[0], rtol=1e-12, atol=1e-15)


SAME = {
    "list": [5, 1, 1],
    "tuple": (5, 1, 1),
    "tensor": torch.tensor([5, 1, 1]),
    "int32 tensor": torch.tensor([5, 1, 1], dtype=torch.int32),
    "numpy array": np.array([5, 1, 1]),
    "range": range(3),
    "numpy ints": [np.int64(5), np.int64(1), np.int64(1)],
    "callable": lambda out: out[torch.arange(3), torch.tensor([5, 1, 1])],
}


@pytest.mark.parametrize("form", SAME)
def test_every_form_of_a_target(net, x, form):
    classes = [0, 1, 2] if form == "range" else [5, 1, 1]
    expected, _, _ = twin.attribution(net, x, classes, twin.guided)
    e = relume.explain(net, x, SAME[form], ["guided_backprop"])
    torch.testing.assert_close(e["guided_backprop"], expected, rtol=1e-12, atol=1e-15)
    if form != "callable":
        assert e.target.tolist() == classes
        assert torch.equal(e.score, e.scores[torch.arange(3), e.target])


def test_a_callable_over_class_scores_explains_its_own_score(net, x, tmp_path):
    """Why this class and not that one: the score is the callable's, the classes stay what they are."""
    e = relume.explain(net, x, lambda out: out[:, 1] - out[:, 0], ["guided_backprop"])
    assert torch.equal(e.score, net(x)[:, 1] - net(x)[:, 0])
    assert e.scores.shape == (3, 6)
    assert e.title(0) == f"score {float(e.score[0]):.3g}"
    assert e.save(tmp_path / "out").is_dir()
    assert e._repr_html_()
    assert e.as_dict()["samples"][2]["score"] == pytest.approx(float(e.score[2]))


@pytest.mark.parametrize("target", [2, np.int64(2), torch.tensor(2)])
def test_one_class_for_all(net, x, target):
    assert relume.explain(net, x, target, ["gradient"]).target.tolist() == [2, 2, 2]


def test_no_target_is_the_prediction_of_evaluation_mode(net, x):
    e = relume.explain(net.train(), x, methods=["gradient"])
    assert torch.equal(e.target, net.eval()(x).argmax(1))


def test_an_explicit_target_is_obeyed(net, x):
    predicted = net(x).argmax(1)
    other = (predicted + 1) % 6
    e = relume.explain(net, x, other, ["guided_backprop"])
    assert torch.equal(e.target, other)
    expected, _, _ = twin.attribution(net, x, other, twin.guided)
    torch.testing.assert_close(e["guided_backprop"], expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (6, r"class 6 is out of range: the network has 6 classes, 0 to 5"),
        (-1, r"class -1 is out of range"),
        ([0, 1, 6], r"class 6 is out of range"),
        ([0, 1], r"2 targets were given for 3 samples"),
        ([1], r"1 targets were given for 3 samples"),
        ([], r"0 targets were given for 3 samples"),
        (torch.tensor([[0, 1, 2]]), r"a target is None, a class index"),
        (1.0, r"got 1.0"),
        ("dog", r"got 'dog'"),
        (True, r"got True"),
        ([0, 1, None], r"a target is None"),
        (torch.tensor([0.0, 1.0, 2.0]), r"a target is None"),
        (lambda out: out, r"one score per sample, a tensor of shape \(3,\); this one gave a Tensor of shape \(3, 6\)"),
        (lambda out: 3.0, r"this one gave a float of shape \(\)"),
        (lambda out: out.sum(), r"this one gave a Tensor of shape \(\)"),
    ],
)
def test_targets_that_do_not_fit(net, x, target, says):
    with pytest.raises(errors.TargetError, match=says):
        relume.explain(net, x, target, ["gradient"])


# --- Inputs ---


def test_several_inputs_positional_and_keyword():
    net = TwoInputs().double()
    image, other = torch.randn(2, 2, 3, 6, 6, dtype=torch.float64)
    kind = torch.tensor([1, 4])
    expected, _, _ = twin.attribution(lambda y: net(y, kind), image, [0, 2], twin.guided)
    positional = relume.explain(net, (image, kind), [0, 2], ["guided_backprop"])
    keyword = relume.explain(net, {"image": image, "kind": kind}, [0, 2], ["guided_backprop"])
    for e in (positional, keyword):
        torch.testing.assert_close(e["guided_backprop"], expected, rtol=1e-12, atol=1e-15)
    both = {"kind": kind, "image": image, "other": other, "scale": 2.0}
    expected, _, _ = twin.attribution(lambda y: net(image, kind, other=y, scale=2.0), other, [0, 2], twin.guided)
    got = relume.GuidedBackpropagation(net).attribute(both, [0, 2], wrt="other")
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("conv", "pool", "shape"),
    [(nn.Conv1d, (2,), (2, 3, 20)), (nn.Conv3d, (2, 3, 4), (2, 3, 5, 6, 7))],
    ids=["signal", "volume"],
)
def test_signals_and_volumes(conv, pool, shape):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(conv(3, 4, 3), nn.ReLU(), conv(4, 4, 2, 2), nn.ReLU())
            self.head = nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.body(x).mean(pool))

    net = Net().double()
    x = torch.randn(shape, dtype=torch.float64)
    expected, _, _ = twin.attribution(net, x, [2, 0], twin.guided)
    e = relume.explain(net, x, [2, 0], ALL)
    assert e.layer == "body"
    torch.testing.assert_close(e["guided_backprop"], expected, rtol=1e-12, atol=1e-15)
    coarse = net.body(x).shape[2:]
    assert e["gradcam"].shape == (2, *coarse)
    assert e.saliency("gradcam").shape == (2, *shape[2:])
    mode = {1: "linear", 3: "trilinear"}[len(coarse)]
    fine = F.interpolate(e["gradcam"][:, None], shape[2:], mode=mode, align_corners=False)
    torch.testing.assert_close(e["guided_gradcam"], expected * fine, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ("dog.jpg", "preprocess_image reads a picture file"),
        (np.zeros((1, 3, 8, 8)), "torch.from_numpy"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "images must be floats"),
        (torch.zeros(0, 3, 8, 8), "hold no sample"),
        ((1, 2), "no floating-point tensor to explain"),
        ({"x": torch.tensor([1])}, "no floating-point tensor to explain"),
    ],
)
def test_inputs_that_cannot_be_explained(images, says):
    with pytest.raises(errors.InputError, match=says):
        relume.explain(Small(), images)


def test_an_image_without_its_batch_axis_is_said():
    class Anything(nn.Module):
        def forward(self, x):
            return F.relu(x).sum((-1, -2))[None]

    with pytest.raises(errors.TargetError, match=r"scores for 1 samples and was given 3; pass a batch"):
        relume.explain(Anything(), torch.randn(3, 8, 8), 0, ["gradient"])


def test_what_the_network_raises_is_raised_with_the_shape_it_was_given():
    with pytest.raises(RuntimeError) as caught:
        relume.explain(Small(), torch.randn(2, 4, 8, 8))
    assert "an input of shape (2, 4, 8, 8)" in caught.value.__notes__[0]


def test_a_subclass_of_tensor_is_explained(net, x):
    class Tagged(torch.Tensor):
        pass

    got = relume.GuidedBackpropagation(net).attribute(x.as_subclass(Tagged), 1)
    assert torch.equal(got, relume.GuidedBackpropagation(net).attribute(x, 1))


def test_what_is_no_model_or_no_tensor(net, x):
    with pytest.raises(errors.InputError, match="a model is a torch.nn.Module or another callable; got None"):
        relume.explain(None, x)
    with pytest.raises(errors.InputError, match="images are a tensor"):
        relume.GuidedBackpropagation(net)(x.numpy(), 1, "cpu")


def test_a_forward_under_no_grad_is_said_before_anything_about_layers(x):
    class Frozen(Small):
        @torch.no_grad()
        def forward(self, x):
            return super().forward(x)

    with pytest.raises(errors.GraphError, match="look for torch.no_grad"):
        relume.explain(Frozen().double(), x)


def test_a_derivative_that_is_none_is_said():
    class Cut(torch.autograd.Function):
        @staticmethod
        def forward(ctx, y):
            return y * 1

        @staticmethod
        def backward(ctx, g):
            return None

    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2, 2))
    net[0].register_forward_hook(lambda _m, _a, out: Cut.apply(out))
    with pytest.raises(errors.GraphError, match="no gradient reached the input"):
        relume.explain(net, torch.randn(1, 3, 3, 3), 0, ["gradient"])


# --- Outputs ---


class Aux(NamedTuple):
    logits: torch.Tensor
    aux: torch.Tensor


@dataclass
class Output:
    loss: object
    hidden: torch.Tensor
    logits: torch.Tensor


OUTPUTS = {
    "tuple": lambda s: (s, s[:, :, None]),
    "list, the scores not first": lambda s: [s[:, 0], s],
    "namedtuple": lambda s: Aux(s, s * 3),
    "dict": lambda s: {"aux": s * 2, "logits": s},
    "nested dict": lambda s: {"features": s[:, :, None], "out": {"logits": s}},
    "dataclass": lambda s: Output(None, s * 2, s),
}


@pytest.mark.parametrize("form", OUTPUTS)
def test_every_form_of_output(net, x, form):
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return OUTPUTS[form](self.net(x))

    plain = relume.explain(net, x, [1, 2, 3], ALL, "body")
    wrapped = relume.explain(Wrapped(), x, [1, 2, 3], ALL, "net.body")
    assert torch.equal(wrapped.scores, plain.scores)
    for method in ALL:
        assert torch.equal(wrapped[method], plain[method])


class Returning(nn.Module):
    """The small network, and what ``form`` makes of its scores ``(N, 6)`` and an embedding ``(N, 16)``."""

    def __init__(self, net, form):
        super().__init__()
        self.net, self.form = net, form

    def forward(self, x):
        scores = self.net(x)
        return self.form(torch.cat([scores, -scores, scores[:, :4] ** 2], 1), scores)


AMBIGUOUS = {
    "embedding first": (
        lambda e, s: (e, s),
        1,
        r"\[0\] \(3, 16\), \[1\] \(3, 6\), and \[0\] and \[1\] .* output=0 or output=1 ",
    ),
    "dict": (
        lambda e, s: {"embedding": e, "map": e[..., None], "scores": s},
        "scores",
        r"map \(3, 16, 1\), scores \(3, 6\), and embedding and scores .* output='embedding' or output='scores' ",
    ),
    "nested": (
        lambda e, s: {"heads": [e, s]},
        lambda returned: returned["heads"][1],
        r"heads\[0\] and heads\[1\] can each be the scores; choose by a callable",
    ),
    "two logits": (
        lambda e, s: {"a": {"logits": e}, "b": {"logits": s}},
        "b",
        r"a.logits and b.logits can each be the scores; .* output='b' \(--scores a or --scores b in the command\)",
    ),
}


def test_the_same_tensor_returned_twice_is_one(net, x):
    plain = relume.explain(net, x, 2, ["guided_backprop"])
    for form in (lambda _, s: (s, s), lambda _, s: {"a": s, "b": [s]}):
        e = relume.explain(Returning(net, form), x, 2, ["guided_backprop"])
        assert torch.equal(e["guided_backprop"], plain["guided_backprop"])


@pytest.mark.parametrize("form", AMBIGUOUS)
def test_several_tensors_that_can_be_the_scores_are_not_guessed_among(net, x, form):
    returned, output, says = AMBIGUOUS[form]
    model = Returning(net, returned)
    for target in (None, 1, [0, 1, 2]):
        with pytest.raises(errors.TargetError, match=says):
            relume.explain(model, x, target, ["guided_backprop"], "net.body")
    plain = relume.explain(net, x, [1, 2, 3], ["guided_backprop", "gradcam"], "body")
    chosen = relume.explain(model, x, [1, 2, 3], ["guided_backprop", "gradcam"], "net.body", output=output)
    assert torch.equal(chosen.scores, plain.scores)
    assert chosen.evidence == plain.evidence  # the runner-up too is one of the scores
    for method in plain.maps:
        assert torch.equal(chosen[method], plain[method])


def test_what_cannot_be_scores_is_no_choice(net, x):
    """Of another number of rows, of integers, or of other axes."""

    def form(embedding, scores):
        return embedding[:2], scores.argmax(1)[:, None], embedding[..., None], scores

    plain = relume.explain(net, x, 2, ["gradient"])
    assert torch.equal(relume.explain(Returning(net, form), x, 2, ["gradient"])["gradient"], plain["gradient"])


def test_a_callable_needs_no_choice(net, x):
    model = Returning(net, lambda e, s: (e, s))
    e = relume.explain(model, x, lambda returned: returned[1][:, 2], ["gradient"])
    assert torch.equal(e["gradient"], relume.explain(net, x, 2, ["gradient"])["gradient"])
    assert torch.equal(e.scores, e.score)  # nothing tells which are the class scores


@pytest.mark.parametrize(("form", "name"), [(lambda e, s: (e, s), "1"), (lambda e, s: {"1": s, "0": e}, "1")])
def test_an_index_as_text_is_a_key_first(net, x, form, name):
    e = relume.explain(Returning(net, form), x, 2, ["gradient"], output=name)
    assert torch.equal(e["gradient"], relume.explain(net, x, 2, ["gradient"])["gradient"])


def test_audit_and_evaluation_ask_the_same_scores(net, x):
    model = Returning(net, lambda e, s: (e, s))
    checks = {"checks": ["coverage", "edges", "classes", "stability", "faithfulness"]}
    with pytest.raises(errors.TargetError, match="output=0 or output=1"):
        relume.audit(model, x, **checks)
    plain, chosen = relume.audit(net, x, **checks), relume.audit(model, x, output=1, **checks)
    assert torch.equal(plain.classes, chosen.classes)
    assert not chosen.skipped
    for key, values in plain.measures.items():
        np.testing.assert_array_equal(values, chosen.measures[key])
    mask = np.zeros((8, 8), bool)
    mask[2:5, 2:5] = True
    samples = [Sample("one", x[0], {4: mask}, mask)]
    with pytest.raises(errors.TargetError, match="output=0 or output=1"):
        evaluate(model, samples, ["gradient"])
    rows = [evaluate(m, samples, ["gradient"], output=o).as_dict()["measures"] for m, o in ((net, None), (model, 1))]
    assert rows[0] == rows[1]


def test_the_doctor_asks_the_scores_meant(net, x):
    model = Returning(net, lambda e, s: (e, s))
    found = check(model, x)
    assert all("output=0 or output=1" in trouble for trouble in found.troubles.values())
    assert found.troubles.keys() == relume.METHODS.keys()
    assert not check(model, x, output="1").troubles


def test_no_class_at_all_is_said(x):
    class Empty(nn.Module):
        def forward(self, x):
            return F.relu(x).flatten(1)[:, :0]

    with pytest.raises(errors.TargetError, match=r"returned output \(3, 0\), which is no class at all"):
        relume.explain(Empty(), x, methods=["gradient"])


def test_outputs_without_class_scores_need_a_callable():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 3, padding=1)

        def forward(self, x):
            return {"out": F.relu(self.conv(x))}

    net, x = Dense(), torch.randn(2, 3, 6, 6)
    with pytest.raises(errors.TargetError, match=r"this network returns out \(N, 5, H, W\): relume.targets.Segmentation\(\d\)"):
        relume.explain(net, x, 1, ["guided_backprop"])
    e = relume.explain(net, x, lambda out: out["out"][:, 1].mean((1, 2)), ["guided_backprop"])
    assert e.target is None
    assert e.scores.shape == e.score.shape == (2,)
    assert e.top() == []


# --- NaN and infinity ---


def test_the_error_says_where_the_nan_is(net, x):
    bad = x.clone()
    bad[0, 1, 2, 3], bad[1, 0, 0, 0] = float("nan"), float("inf")
    with pytest.raises(errors.NonFiniteError, match="the input holds 1 NaN and 1 infinite values"):
        relume.explain(net, bad)
    net.conv2.weight.data[0, 0, 0, 0] = float("nan")
    with pytest.raises(errors.NonFiniteError, match=r"the weight 'conv2.weight' holds 1 NaN"):
        relume.explain(net, x)
    net.conv2.weight.data[0, 0, 0, 0] = 0
    net.bn1.running_var[0] = float("inf")
    net.bn1.running_mean[0] = float("nan")
    with pytest.raises(errors.NonFiniteError, match=r"the buffer 'bn1.running_mean' holds 1 NaN"):
        relume.explain(net, x)


def test_overflow_in_the_forward_and_in_the_map_are_told_apart():
    class Square(nn.Module):
        def forward(self, x):
            return F.relu(x).flatten(1) ** 2

    class RootOfSquare(nn.Module):
        def forward(self, x):
            return (x * x).sqrt().flatten(1)

    with pytest.raises(errors.NonFiniteError, match="the network overflowed"):
        relume.explain(Square(), torch.full((1, 1, 2, 2), 1e30), 0, ["gradient"])
    with pytest.raises(errors.NonFiniteError, match="the gradient map holds NaN or infinity although the scores are finite"):
        relume.explain(RootOfSquare(), torch.zeros(1, 1, 2, 2), 0, ["gradient"])


def test_methods_that_do_not_exist(net, x):
    with pytest.raises(errors.InputError, match="no method 'guided_bckprop'; did you mean 'guided_backprop'"):
        relume.explain(net, x, methods=["guided_bckprop"])
    with pytest.raises(errors.InputError, match="list of keys"):
        relume.explain(net, x, methods="gradient")
    with pytest.raises(errors.InputError, match="list of keys"):
        relume.explain(net, x, methods=[])
    with pytest.raises(errors.InputError, match="a method is a key of relume.METHODS or a relume.Method; got 3"):
        relume.explain(net, x, methods=[3])
    with pytest.raises(errors.InputError, match="two different methods are called 'gradient'"):
        relume.explain(net, x, methods=["gradient", backpropagation("gradient", relume.rules.guided)])
    assert list(relume.explain(net, x, methods=(m for m in ["gradient"])).maps) == ["gradient"]
    with pytest.raises(errors.InputError, match="no map 'gradcam' in this explanation; it holds gradient"):
        relume.explain(net, x, methods=["gradient"])["gradcam"]
