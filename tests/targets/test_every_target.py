"""Every target in batches, copies, files and audits: each asks the same. tests/test_table.py has their scores and maps."""

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

REFERENCE = torch.tensor([0.3, -1.0, 0.5, 0.2, 0.9], dtype=torch.float64)
BOX = (2.0, 1.0, 4.5, 5.0)


# name: (head, the target)
FLAT = {
    "probability": ("classes", Probability(2, activation="softmax")),
    "predicted probability": ("classes", Probability(activation="sigmoid")),
    "yes": ("one", Binary(True)),
    "no": ("one", Binary(False)),
    "down": ("one", Regression("down")),
    "towards": ("one", Regression(0.5)),
    "several": ("classes", Contrast(1, [0, 3], 0.5)),
    "nearest": ("classes", Contrast(None, Nearest(2), gamma=0.6)),
    "cosine": ("embedding", Embedding(REFERENCE)),
    "dot": ("embedding", Embedding(REFERENCE, "dot")),
    "a reference each": ("embedding", Embedding(torch.stack([REFERENCE, -REFERENCE, REFERENCE.flip(0)]))),
}
PLACED = {"pixels": ("pixels", Segmentation(1))}
for kind in ("yolo5", "yolo8", "detr", "listed"):
    PLACED[f"{kind}, best"] = kind, Detection(1)
    PLACED[f"{kind}, box"] = kind, Detection(1, box=BOX)
    PLACED[f"{kind}, sum"] = kind, Detection(1, reduce="sum")
TARGETS = {**FLAT, **PLACED}


@pytest.mark.parametrize("name", TARGETS)
def test_batches_copies_and_files_ask_the_same(name, tmp_path):
    head, target = TARGETS[name]
    net, x = headed(head), images()
    methods = ["guided_backprop", relume.Smooth("gradient", 2, 1e-6)]
    methods += [relume.Augmented("gradient")] if name in FLAT else []
    labels = ["cat", "a dog", "mouse", "owl"][: 3 if name in PLACED else 4] if head not in ("one", "embedding") else None
    whole = relume.explain(net, x, target, methods, labels=labels)
    parts = relume.explain(net, x, target, methods, labels=labels, batch_size=2)
    torch.testing.assert_close(whole.score, parts.score, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(whole["guided_backprop"], parts["guided_backprop"], rtol=1e-9, atol=1e-12)
    plain = relume.explain(net, x, target, ["gradient"], evidence=None)["gradient"]
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
    head, target = TARGETS[name]
    net, x = headed(head).float(), images().float()
    checks = ["coverage", "classes", "randomisation", "edges", "stability", "road"]
    whole = relume.audit(net, x, target, checks=checks, labels=["cat", "dog", "mouse"] if name in PLACED else None)
    assert set(whole.skipped) == {"classes"}
    assert "no other class" in whole.skipped["classes"]
    parts = relume.audit(net, x, target, checks=checks, batch_size=2)
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
