"""Class competition: against its slow twin, for every kind of target, and wherever a method may stand."""

import pytest
import torch
from torch import nn

import relume
from relume import Competing
from relume.engine.trace import Trace
from relume.errors import InputError, TargetError
from relume.targets import Binary, Class, Contrast, Detection, Neuron, Probability, Segmentation
from relume.targets.rivals import rivals_of
from tests.helpers.assertions import assert_near
from tests.helpers.networks import Small
from tests.reference import repeated
from tests.reference.twin import by_twin

METHODS = ["gradient", "guided_backprop", "gradcam", "guided_gradcam"]


@pytest.fixture
def net():
    return Small().double().eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 8, 8, dtype=torch.float64)


@pytest.mark.parametrize("rivals", [1, 3, 9])
def test_every_method_equals_the_twin_by_the_fewest_passes(net, x, rivals, monkeypatch):
    passes, grad = [], Trace.grad
    monkeypatch.setattr(Trace, "grad", lambda *args, **kwargs: passes.append(args) or grad(*args, **kwargs))
    forward = []
    net.register_forward_hook(lambda *_: forward.append(1))
    wrappers = [Competing(key, rivals=rivals) for key in METHODS]
    e = relume.explain(net, x, [1, 4], [*METHODS, *wrappers], "body", evidence=None)
    assert len(forward) == 1
    competing = min(rivals, 4)
    assert len(passes) == 2 * (1 + competing)  # by two rules, of the target and of each rival; none is made twice
    for key in METHODS:
        expected = []
        for i, own in enumerate((1, 4)):
            order = [k for k in e.scores[i].argsort(descending=True).tolist() if k != own]
            classes = [own, *order[: competing - 1], order[-1]]
            expected.append(repeated.competition([by_twin(net, key, [k])(x[i : i + 1]) for k in classes]))
        assert_near(e[f"competing_{key}"], torch.cat(expected))
        assert_near(e[key], by_twin(net, key, [1, 4])(x))


def test_a_map_that_is_zero_or_the_same_for_every_class_keeps_nothing():
    class Same(nn.Module):
        def forward(self, x):
            return x.relu().flatten(1).sum(1, keepdim=True).repeat(1, 3)

    e = relume.explain(Same(), torch.rand(1, 1, 4, 4) + 0.1, 0, ["gradient", Competing("gradient")])
    assert e["gradient"].all()
    assert e.empty("competing_gradient") == [True]


def test_rivals_are_asked_the_same_question():
    scores = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 1.0, 2.0, 3.0]])
    probability = Probability(0, activation="softmax").frozen(scores, 2)
    rivals = rivals_of(probability, scores, 2)
    assert [r.index.tolist() for r in rivals] == [[2, 3], [3, 1]]
    torch.testing.assert_close(rivals[0].scores(scores), scores.softmax(1)[[0, 1], [2, 3]])
    torch.testing.assert_close(rivals[0].rows(slice(1, 2)).scores(scores[1:]), scores.softmax(1)[1:, 3])
    twice = scores.repeat(2, 1)
    torch.testing.assert_close(rivals[0].repeated(2).scores(twice), twice.softmax(1)[range(4), [2, 3, 2, 3]])

    pixels = torch.randn(2, 3, 4, 4)
    region = torch.zeros(4, 4, dtype=torch.bool)
    region[1, 1:3] = True
    place = Segmentation(1, region).known((4, 4), "none").frozen(pixels, 2)
    sums = pixels[:, :, 1, 1:3].sum(2)
    rivals = rivals_of(place, pixels, 2)
    assert all(rival.is_local for rival in rivals)
    torch.testing.assert_close(rivals[0].scores(pixels), sums[:, [0, 2]].amax(1))
    torch.testing.assert_close(rivals[1].scores(pixels), sums[:, [0, 2]].amin(1))

    boxes = torch.rand(1, 20, 4 + 1 + 3) + 1
    box = Detection(2, index=5, layout="boxes_first").known((32, 32), "none").frozen(boxes, 1)
    expected = boxes[0, 5, 4] * boxes[0, 5, 5:]
    torch.testing.assert_close(
        torch.cat([r.scores(boxes) for r in rivals_of(box, boxes, 9)]), expected[:2].sort(descending=True)[0]
    )


@pytest.mark.parametrize("target", [Binary(), Neuron("conv2", 1, (2, 3)), Contrast(0, 1), lambda out: out[:, 0]])
def test_what_is_about_no_class_has_no_rivals(net, x, target):
    model = nn.Sequential(net, nn.Linear(5, 1, dtype=torch.float64)) if isinstance(target, Binary) else net
    with pytest.raises(TargetError, match="classes compete for what the score of one can be read for the others too"):
        relume.explain(model, x, target, [Competing("gradient")])


def test_what_competes_with_nothing_is_refused(net, x):
    listed = [{"boxes": torch.tensor([[0.0, 0, 9, 9]]), "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}]
    with pytest.raises(TargetError, match="a detection of class 1 is no such score"):
        rivals_of(Detection(1).frozen(listed, 1), listed, 4)
    with pytest.raises(TargetError, match="this network has one; explain it by the plain method"):
        relume.explain(nn.Sequential(net, nn.Linear(5, 1, dtype=torch.float64)), x, 0, [Competing("gradient")])
    for rivals in (0, True, 2.5):
        with pytest.raises(InputError, match="one class competes with the target at least; got rivals="):
            Competing("gradient", rivals=rivals)


def test_it_stands_wherever_a_method_does(net, x, tmp_path):
    wrapper = Competing("guided_gradcam", rivals=2)
    first, second = relume.compare(net, x, [Class(1), Class(4)], [wrapper], "body", batch_size=1)
    for e, target in ((first, 1), (second, 4)):
        expected = relume.explain(net, x, target, [wrapper], "body")["competing_guided_gradcam"]
        torch.testing.assert_close(e["competing_guided_gradcam"], expected, rtol=1e-9, atol=1e-13)
    assert relume.audit(net, x, 1, wrapper, "body", checks=["classes", "stability"]).method == "competing_guided_gradcam"
    opened = relume.open_model("demo")
    assert relume.evaluate(opened, "scenes:1", [wrapper]).methods == ("competing_guided_gradcam",)
    picture = relume.demo.draw_scene(7).picture
    picture.save(tmp_path / "scene.png")
    run = relume.run(opened, tmp_path, tmp_path / "run", methods=[wrapper])
    assert run.explanation(run.table(["id"])["id"][0].as_py()).maps.keys() == {"competing_guided_gradcam"}
