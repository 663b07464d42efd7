"""Real weights, real photographs: SqueezeNet on the dog and the cat, and a CIFAR ResNet of functional ReLUs."""

import json

import numpy as np
import pytest
import torch
from matplotlib import colormaps

import relume
from relume.models.checkpoints import load_weights, read_checkpoint
from relume.models.labels import find_class, read_labels
from relume.models.sources import open_model
from relume.pictures import kinds as render
from relume.pictures.photo import load_picture
from relume.pictures.preprocessing import Preprocessing
from tests.helpers.networks import ResNet20
from tests.reference import twin

METHODS = ["gradient", "guided_backprop", "gradcam", "guided_gradcam"]


@pytest.fixture(scope="module")
def squeezenet(realdata):
    return open_model("torchvision:squeezenet1_0", weights=realdata / "weights" / "squeezenet1_0.safetensors")


@pytest.fixture(scope="module")
def boxes(realdata):
    found = json.loads((realdata / "boxes.json").read_text())["cat_dog.png"]["objects"]
    return {thing["name"]: thing["xyxy"] for thing in found}


def share(saliency, box):
    x0, y0, x1, y1 = box
    return float(saliency[y0:y1, x0:x1].sum() / saliency.sum())


# (dog, cat) for the dog's class 243, then for the cat's class 282: the table of realdata/README.md
TABLE = {
    "gradient": [(0.47, 0.29), (0.32, 0.52)],
    "guided_backprop": [(0.57, 0.28), (0.40, 0.54)],
    "gradcam": [(0.67, 0.15), (0.29, 0.66)],
    "guided_gradcam": [(0.85, 0.06), (0.33, 0.71)],
}


def test_shares_in_the_boxes_are_those_of_the_table(squeezenet, realdata, boxes):
    """The table was taken with a 1-pixel pad on the last convolution, at 227, the boxes laid on that crop unscaled."""
    preprocessing = Preprocessing(resize=256, crop=227)
    x = preprocessing.tensor(preprocessing.view(load_picture(realdata / "images" / "cat_dog.png")))[None]
    padded = open_model("torchvision:squeezenet1_0", weights=realdata / "weights" / "squeezenet1_0.safetensors").model
    padded.classifier[1].padding = (1, 1)
    explained = relume.compare(padded, x, [243, 282], METHODS, "features.12", activation="softmax")
    assert explained[0].top(0, 1)[0][0] == 243
    assert explained[0].top(0, 1)[0][2] == pytest.approx(0.84, abs=0.01)
    for method, rows in TABLE.items():
        for e, (dog, cat) in zip(explained, rows, strict=True):
            saliency = e.saliency(method)[0]
            assert share(saliency, boxes["bull mastiff"]) == pytest.approx(dog, abs=0.025), method
            assert share(saliency, boxes["tabby"]) == pytest.approx(cat, abs=0.025), method


@pytest.mark.parametrize("layer", ["features.12", None])
def test_the_dog_lights_up_for_the_dog_and_the_cat_for_the_cat(squeezenet, realdata, boxes, layer):
    """The network as it is, with torchvision's preprocessing, and the boxes where that puts them."""
    view = squeezenet.preprocessing.view(load_picture(realdata / "images" / "cat_dog.png"))
    placed = {name: [max(round(c * 256 / 224 - 16), 0) for c in box] for name, box in boxes.items()}
    dog, cat = relume.compare(squeezenet.model, squeezenet.preprocessing.tensor(view)[None], [243, 282], METHODS, layer)
    for method in METHODS:
        on_dog = [share(e.saliency(method)[0], placed["bull mastiff"]) for e in (dog, cat)]
        on_cat = [share(e.saliency(method)[0], placed["tabby"]) for e in (dog, cat)]
        assert on_dog[0] > on_dog[1]
        assert on_cat[1] > on_cat[0]
    gg_dog, gg_cat = (e.saliency("guided_gradcam")[0] for e in (dog, cat))
    assert share(gg_dog, placed["bull mastiff"]) > 0.9
    assert share(gg_cat, placed["tabby"]) > 0.7
    # guided backpropagation alone hardly tells the two apart: its two maps are far more alike
    alike = {m: float(torch.corrcoef(torch.stack([e.saliency(m)[0].flatten() for e in (dog, cat)]))[0, 1]) for m in METHODS}
    assert alike["guided_backprop"] > 0.5 > alike["guided_gradcam"]


def test_pictures_lie_on_the_photo_where_the_boxes_are(squeezenet, realdata, boxes):
    """The boxes are in pixels of the photo: so they are found in the picture drawn on it, and not in that of the input."""
    path = realdata / "images" / "cat_dog.png"
    x = squeezenet.preprocessing.tensor(squeezenet.preprocessing.view(load_picture(path)))[None]
    both = relume.compare(squeezenet.model, x, [243, 282], ["gradcam", "guided_gradcam"], "features.12")
    for e, name in zip(both, ("bull mastiff", "tabby"), strict=True):
        drawn = e.with_photos([path], squeezenet.preprocessing)
        for method in e.maps:
            picture = render.positive(drawn.drawn(method), drawn.scale(method)[0], drawn.photos[0], colors=colormaps["gray"])
            heat = np.asarray(picture, dtype=float)[..., 0]
            heat[np.asarray(render.positive(np.zeros((2, 2), np.float32), 0, drawn.photos[0]))[..., 0] > 0] = 0  # never seen
            assert share(heat, boxes[name]) > 0.65, (name, method)


def test_real_squeezenet_equals_the_twin(squeezenet, realdata):
    model = squeezenet.model.double()
    try:
        view = squeezenet.preprocessing.view(load_picture(realdata / "images" / "cat_dog.png"))
        x = squeezenet.preprocessing.tensor(view)[None].double()
        e = relume.explain(model, x, 243, ["guided_backprop", "deconvnet"])
        for method, rule in (("guided_backprop", twin.guided), ("deconvnet", twin.deconvnet)):
            expected, _, calls = twin.attribution(model, x, [243], rule)
            assert (e[method] - expected).norm() <= 1e-12 * expected.norm()
            assert expected.any()
            assert calls.total() == e.coverage.guided == 26
    finally:
        model.float()


@pytest.mark.parametrize(
    ("photo", "label"),
    [("coral_bird.png", "chickadee"), ("coral_dragonfly.png", "dragonfly"), ("coral_dog_segmentation_256.png", "Samoyed")],
)
def test_photographs_are_recognised(squeezenet, realdata, photo, label):
    """Preprocessing, weights and labels belong together: a wrong one of them would show here."""
    labels = read_labels(realdata / "imagenet_classes.txt")
    x = squeezenet.preprocessing.tensor(squeezenet.preprocessing.view(load_picture(realdata / "images" / photo)))[None]
    e = squeezenet.explain(realdata / "images" / photo, methods=["gradient"])
    assert torch.equal(e.images, x)
    assert torch.equal(e.probabilities(), e.scores[0].softmax(0))
    assert find_class(label, labels) in [index for index, _, _ in e.top(0, 3)]
    assert find_class(label, squeezenet.labels) == find_class(label, labels)


def test_cifar_resnet_of_functional_relus(realdata):
    net = ResNet20()
    path = realdata / "weights" / "cifar_resnet20.safetensors"
    load_weights(net, read_checkpoint(path).tensors, "ResNet20", path)
    net = net.double().eval()
    preprocessing = Preprocessing(resize=32, crop=32)
    photos = sorted((realdata / "images" / "cifar10").glob("*.jpg"))
    x = torch.stack([preprocessing.tensor(preprocessing.view(load_picture(p))) for p in photos]).double()
    expected, scores, calls = twin.attribution(net, x, [0] * 5 + [1] * 5, twin.guided)
    e = relume.explain(net, x, [0] * 5 + [1] * 5, ["guided_backprop", "guided_gradcam"], "layer3")
    assert (scores.argmax(1) == torch.tensor([0] * 5 + [1] * 5)).sum() >= 8
    assert (e["guided_backprop"] - expected).norm() <= 1e-12 * expected.norm()
    assert calls.total() == e.coverage.guided == 19
    assert e["guided_gradcam"].abs().flatten(1).sum(1).gt(0).all()
