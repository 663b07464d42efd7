"""An opened network explains photos: prepared as it wants them, drawn as they are, classes by their names."""

import dataclasses

import pytest
import torch
from PIL import Image

import relume
from relume.demo import CLASSES, draw_scene
from relume.errors import ImageError, ModelError, TargetError
from relume.pictures.photo import Photo

METHODS = ["guided_backprop", "gradcam"]


@pytest.fixture(scope="module")
def network():
    return relume.open_model("demo")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A scene in the middle of a wider picture, as a file."""
    picture = Image.new("RGB", (200, 128), "white")
    picture.paste(draw_scene(0, ["cat", "dog"]).picture, (36, 0))
    path = tmp_path_factory.mktemp("photos") / "wide.png"
    picture.save(path)
    return path


def test_it_is_explain_on_the_prepared_photo(network, wide):
    e = network.explain(wide, "dog", METHODS)
    image = network.preprocessing.tensor(network.preprocessing.view(Image.open(wide)))[None]
    expected = relume.explain(network.model, image, CLASSES.index("dog"), METHODS)
    assert all(torch.equal(e[m], expected[m]) for m in METHODS)
    assert e.title().startswith("dog (6), ")
    assert (e.model, e.labels, e.activation) == ("demo", CLASSES, "sigmoid")
    assert e.photos[0].box == (36, 0, 164, 128)
    assert e.overlay("gradcam").size == (200, 128)
    assert e.source["file"] == str(wide)
    assert e.source["rectifiers"] == "all"


def test_several_photos_and_targets_share_a_forward_pass(network, wide, monkeypatch):
    passes, forward = [], type(network.model).forward
    monkeypatch.setattr(type(network.model), "forward", lambda self, x: passes.append(len(x)) or forward(self, x))
    photos = [wide, str(wide), Image.open(wide), Photo.whole(Image.open(wide))]
    cat, dog = network.compare(photos, ["cat", 6], METHODS, "layer2", rectifiers="relu")
    assert passes == [4]
    assert (len(cat), cat.layer, cat.source["rectifiers"]) == (4, "layer2", "relu")
    assert dog.title(3).startswith("dog")
    torch.testing.assert_close(cat[0, "gradcam"], cat[3, "gradcam"])


def test_what_does_not_fit_is_said(network, wide, tmp_path):
    with pytest.raises(TargetError, match="no class is called 'dragon'"):
        network.explain(wide, "dragon")
    with pytest.raises(TargetError, match="cannot be looked up without labels"):
        dataclasses.replace(network, labels=None).explain(wide, "dog")
    with pytest.raises(ModelError, match="3 labels were given for a network of 12 classes"):
        dataclasses.replace(network, labels=("a", "b", "c")).explain(wide, 2)
    with pytest.raises(ImageError, match="there is no file"):
        network.explain(tmp_path / "missing.jpg")
    with pytest.raises(ImageError, match="a photo is a path or a PIL image; got int"):
        network.explain([3])
