"""One table of targets, one of forms of a network, and the numbers of axes: each score and each map is that of its twin."""

import pytest
import torch

import relume
from relume.targets import (
    Binary,
    Channel,
    Contrast,
    Detection,
    Embedding,
    Nearest,
    Neuron,
    Probability,
    Regression,
    Segmentation,
)
from tests.helpers.heads import headed, images
from tests.reference import targets as written
from tests.reference import twin

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
]

REFERENCE = torch.tensor([0.3, -1.0, 0.5, 0.2, 0.9], dtype=torch.float64)
BOX = (2.0, 1.0, 4.5, 5.0)


def of_boxes(score, *args):
    """A twin that reads a detector's boxes, of the kind that the row has."""
    return lambda outputs, i, kind: score(*written.read(outputs, i, kind), *args)


# name: (head, the target, the score of image i written out from the outputs)
FLAT = {
    "probability": ("classes", lambda: Probability(2, activation="softmax"), lambda y, i, _: written.softmax(y[i], 2)),
    "predicted probability": (
        "classes",
        lambda: Probability(activation="sigmoid"),
        lambda y, i, _: 1 / (1 + (-y[i][int(y[i].argmax())]).exp()),
    ),
    "yes": ("one", lambda: Binary(True), lambda y, i, _: y[i, 0]),
    "no": ("one", lambda: Binary(False), lambda y, i, _: -y[i, 0]),
    "down": ("one", lambda: Regression("down"), lambda y, i, _: -y[i, 0]),
    "towards": ("one", lambda: Regression(0.5), lambda y, i, _: -((y[i, 0] - 0.5) ** 2)),
    "several": ("classes", lambda: Contrast(1, [0, 3], 0.5), lambda y, i, _: written.contrast(y[i], 1, [0, 3], 0.5)),
    "nearest": (
        "classes",
        lambda: Contrast(None, Nearest(2), gamma=0.6),
        lambda y, i, _: written.contrast(y[i], c := int(y[i].argmax()), written.nearest(y[i], c, 2), 0.6),
    ),
    "cosine": ("embedding", lambda: Embedding(REFERENCE), lambda y, i, _: written.cosine(y[i], REFERENCE)),
    "dot": ("embedding", lambda: Embedding(REFERENCE, "dot"), lambda y, i, _: (y[i] * REFERENCE).sum()),
    "a reference each": (
        "embedding",
        lambda: Embedding(torch.stack([REFERENCE, -REFERENCE, REFERENCE.flip(0)])),
        lambda y, i, _: written.cosine(y[i], [REFERENCE, -REFERENCE, REFERENCE.flip(0)][i]),
    ),
}
PLACED = {
    "pixels": ("pixels", lambda: Segmentation(1), lambda y, i, _: written.pixels_of(y[i], 1)),
    **{
        f"{kind}, {name}": (kind, target, of_boxes(score, *args))
        for kind in ("yolo5", "yolo8", "detr", "listed")
        for name, target, score, args in (
            ("best", lambda: Detection(1), written.best_of_class, (1,)),
            ("box", lambda: Detection(1, box=BOX), written.best_overlap, (1, BOX)),
            ("sum", lambda: Detection(1, reduce="sum"), written.sum_of_class, (1,)),
        )
    },
}
TARGETS = {**FLAT, **PLACED}


@pytest.mark.parametrize("name", TARGETS)
def test_batches_copies_and_files_ask_the_same(name, tmp_path):
    head, target, _ = TARGETS[name]
    net, x = headed(head), images()
    methods = ["guided_backprop", relume.Smooth("gradient", 2, 1e-6)]
    methods += [relume.Augmented("gradient")] if name in FLAT else []
    labels = ["cat", "a dog", "mouse", "owl"][: 3 if name in PLACED else 4] if head not in ("one", "embedding") else None
    whole = relume.explain(net, x, target(), methods, labels=labels)
    parts = relume.explain(net, x, target(), methods, labels=labels, batch_size=2)
    torch.testing.assert_close(whole.score, parts.score, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(whole["guided_backprop"], parts["guided_backprop"], rtol=1e-9, atol=1e-12)
    plain = relume.explain(net, x, target(), ["gradient"], evidence=None)["gradient"]
    torch.testing.assert_close(whole["smooth_gradient"], plain, rtol=1e-3, atol=1e-4)
    assert name in PLACED or whole["augmented_gradient"].any()
    back = relume.Explanation.load(whole.save(tmp_path / "out"))
    assert [back.title(i) for i in range(3)] == [whole.title(i) for i in range(3)] == [parts.title(i) for i in range(3)]
    assert back[1].title() == whole.title(1)
    assert torch.equal(back["guided_backprop"], whole["guided_backprop"])
    if labels and "predicted" not in name and "nearest" not in name:
        assert ("a dog (1)" if "probability" not in name else "mouse (2)") in whole.title()


@pytest.mark.parametrize("name", ["towards", "cosine", "nearest", "pixels", "yolo8, best", "yolo5, sum", "listed, box"])
def test_an_audit_asks_the_same_whatever_becomes_of_images_and_weights(name):
    head, target, _ = TARGETS[name]
    net, x = headed(head).float(), images().float()
    checks = ["coverage", "classes", "randomisation", "edges", "stability", "road"]
    whole = relume.audit(net, x, target(), checks=checks, labels=["cat", "dog", "mouse"] if name in PLACED else None)
    assert set(whole.skipped) == {"classes"}
    assert "no other class" in whole.skipped["classes"]
    parts = relume.audit(net, x, target(), checks=checks, batch_size=2)
    for key, values in whole.measures.items():
        torch.testing.assert_close(*map(torch.as_tensor, (values, parts.measures[key])), rtol=1e-2, atol=1e-2, equal_nan=True)
    assert whole.view(0).subject.startswith(whole.target_name(0))
    assert whole.as_dict()["pictures"][0]["class"] is None
    if name in PLACED:
        assert "dog (1)" in whole.target_name(0)


def test_units_take_slices():
    net, x = headed("classes"), images()
    maps = net.stem(x)
    several, region, line = (
        relume.explain(net, x, target, ["gradient"], evidence=None)
        for target in (
            Channel("stem", slice(0, 3)),
            Neuron("stem", 2, (slice(1, 4), slice(None, None, 2))),
            Neuron("stem", slice(None, None, 2), (3, slice(5, 8))),
        )
    )
    torch.testing.assert_close(several.score, maps[:, :3].mean((1, 2, 3)))
    torch.testing.assert_close(region.score, maps[:, 2, 1:4, ::2].mean((1, 2)))
    torch.testing.assert_close(line.score, maps[:, ::2, 3, 5:8].mean((1, 2)))
    assert several.title().startswith("stem, channels 0:3, score")
    assert region.title().startswith("stem, channel 2 at (1:4, ::2), score")
    highest = relume.explain(net, x, Neuron("stem", slice(0, 2)), ["gradient"], evidence=None)
    torch.testing.assert_close(highest.score, maps[:, :2].mean(1).flatten(1).amax(1))
    for wrong in (Channel("stem", slice(9, 12)), Neuron("stem", 0, (slice(20, 30), 0)), Neuron("stem", 0, (slice(0, 2),))):
        with pytest.raises(relume.errors.TargetError, match=r"none of which is in 9:12|is no place in it"):
            relume.explain(net, x, wrong, ["gradient"])
