"""An opened network explains photos: prepared as it wants them, drawn as they are, classes by their names."""

import dataclasses
import os

import pytest
import torch
from PIL import Image

import relume
from relume import Smooth
from relume.demo import CLASSES, draw_scene
from relume.errors import ImageError, InputError, ModelError, TargetError
from relume.models import Opened
from relume.models.photos import in_batches
from relume.pictures.photo import Photo
from relume.pictures.preprocessing import Preprocessing

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
    assert e.provenance["file"] == str(wide)
    assert e.provenance["rectifiers"] == "all"


def test_several_photos_and_targets_share_a_forward_pass(network, wide, monkeypatch):
    passes, forward = [], type(network.model).forward
    monkeypatch.setattr(type(network.model), "forward", lambda self, x: passes.append(len(x)) or forward(self, x))
    photos = [wide, str(wide), Image.open(wide), Photo.whole(Image.open(wide))]
    cat, dog = network.compare(photos, ["cat", 6], METHODS, "layer2", rectifiers="relu")
    assert passes == [4]
    assert (len(cat), cat.layer, cat.provenance["rectifiers"]) == (4, "layer2", "relu")
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


# --- Many photos -----------------------------------------------------------------------------------------------------------


class Fussy(torch.nn.Module):
    """A network that fails on dark photos, or on batches, and counts the images of each forward pass, its copies' too."""

    batches = []

    def __init__(self, *, alone=False):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.alone = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(4, 3), alone

    def forward(self, x):
        self.batches.append(len(x))
        if self.alone and len(x) > 1:
            raise RuntimeError("one image at a time")
        if x.mean((1, 2, 3)).min() < -1.8:
            raise ValueError("too dark")
        return self.head(self.conv(x).relu().mean((2, 3)))


def fussy(**options):
    Fussy.batches.clear()
    return Opened("fussy", Fussy(**options).eval(), Preprocessing(resize=16, crop=16))


def shades(*values):
    return [Image.effect_noise((20, 20), 20).point(lambda v, s=s: min(v // 8 + s, 255)).convert("RGB") for s in values]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_batches_give_the_maps_of_photos_explained_alone(network, batch_size):
    photos = [draw_scene(seed).picture for seed in range(5)]
    methods = [*METHODS, "guided_gradcam", Smooth("gradient", 3)]
    together = list(network.explanations(photos, "cat", methods, batch_size=batch_size))
    assert [photo for photo, _ in together] == photos
    for photo, e in together:
        alone = network.explain(photo, "cat", methods)
        assert (e.title(), e.layer, len(e)) == (alone.title(), alone.layer, 1)
        assert e.provenance.keys() == alone.provenance.keys()
        assert e.strongest == pytest.approx(alone.strongest, rel=1e-4)
        for method in e.maps:
            torch.testing.assert_close(e[method], alone[method], rtol=1e-4, atol=1e-6 * float(alone[method].abs().max()))


@pytest.mark.parametrize("batch_size", [1, 3])
def test_each_photo_gets_the_same_draws_of_ones_own_generator(batch_size):
    """Also where the batch runs again one by one, because the photo in the middle fails."""
    opened, (first, last) = fussy(), shades(200, 120)

    def smooth():
        return [Smooth("gradient", 2, generator=torch.Generator().manual_seed(3))]

    for middle in (last, Image.new("RGB", (20, 20))):
        results = [e for _, e in opened.explanations([first, middle, last], 1, smooth(), batch_size=batch_size, evidence=None)]
        for e, photo in ((results[0], first), (results[2], last)):
            alone = opened.explain(photo, 1, smooth(), evidence=None)
            torch.testing.assert_close(e["smooth_gradient"], alone["smooth_gradient"])
    assert isinstance(results[1], ValueError)


def test_a_photo_that_fails_stops_no_other(tmp_path):
    light, dark, grey = shades(200, 0, 120)
    dark = Image.new("RGB", (20, 20))
    opened = fussy()
    photos = [light, dark, tmp_path / "missing.png", grey, light]
    results = list(opened.explanations(photos, 1, ["gradient"], batch_size=3, evidence=None))
    assert [photo for photo, _ in results] == photos
    assert [type(result).__name__ for _, result in results] == [
        "Explanation",
        "ValueError",
        "ImageError",
        "Explanation",
        "Explanation",
    ]
    assert opened.model.batches == [2, 1, 1, 2]  # the second batch runs together again
    torch.testing.assert_close(results[0][1]["gradient"], results[4][1]["gradient"])


def test_a_network_that_takes_one_photo_at_a_time_is_asked_once_for_more():
    opened = fussy(alone=True)
    results = list(opened.explanations(shades(200, 150, 120, 90, 60), 1, ["gradient"], batch_size=2, evidence=None))
    assert not [result for _, result in results if isinstance(result, Exception)]
    assert opened.model.batches == [2, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("count", [1, 3])
def test_each_photo_of_a_batch_has_one_result(count):
    with pytest.raises(ValueError, match="zip"):
        list(in_batches("ab", 2, str, lambda batch: ["result"] * count))


def test_photos_of_different_sizes_are_explained_apart():
    small, large = shades(200, 120)
    large = large.resize((24, 20))
    opened = dataclasses.replace(fussy(), preprocessing=Preprocessing(None, None))
    results = [e for _, e in opened.explanations([small, large, small, small], 1, ["gradient"], batch_size=2, evidence=None)]
    assert [tuple(e["gradient"].shape) for e in results] == [(1, 3, 20, width) for width in (20, 24, 20, 20)]
    assert opened.model.batches == [1, 1, 2]  # the second batch runs together again
    with pytest.raises(
        ImageError, match=r"explained together have one size as the network sees them, and these have 20×20, 24×20;"
    ):
        opened.explain([small, large], 1)


def test_photos_are_read_when_their_turn_comes(network):
    turns = []

    def photos():
        for seed in range(4):
            turns.append(seed)
            yield draw_scene(seed).picture

    results = network.comparisons(photos(), ["cat", "dog"], ["gradient"], batch_size=2, evidence=None)
    _, comparison = next(results)
    assert turns == [0, 1]
    assert [e.title().partition(" ")[0] for e in comparison] == ["cat", "dog"]
    with pytest.raises(InputError, match="batch_size is the number of photos that run at once, from 1 on; got 0"):
        next(network.explanations([], batch_size=0))


def test_results_know_the_file_of_their_photo(network, wide):
    ((path, e),) = network.explanations([wide], "cat", ["gradient"], evidence=None)
    assert path == wide
    assert (e.provenance["file"], e.provenance["path"]) == (str(wide), os.path.realpath(wide))
