"""The scenes: drawn alike from a seed, with masks and boxes that are true, over backgrounds that give nothing away."""

import hashlib
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from relume.demo import CLASSES, draw_scene, scenes
from relume.demo.things import THINGS
from relume.errors import InputError
from relume.measures.baselines import sobel
from relume.measures.localisation import share

MANY = 150


@pytest.fixture(scope="module")
def drawn():
    return [draw_scene(seed) for seed in range(MANY)]


def test_a_scene_holds_one_to_four_things_of_twelve_classes(drawn):
    assert len(CLASSES) == 12
    assert list(CLASSES) == sorted(CLASSES)
    assert Counter(len(s.things) for s in drawn).keys() == {1, 2, 3, 4}
    present = Counter(name for s in drawn for name in {t.name for t in s.things})
    assert present.keys() == set(CLASSES)
    assert min(present.values()) > 0.4 * max(present.values())
    for scene in drawn:
        assert scene.picture.size == (128, 128)
        assert scene.picture.mode == "RGB"
        assert scene.classes == tuple(sorted({CLASSES.index(t.name) for t in scene.things}))


def test_masks_are_disjoint_and_boxes_tight(drawn):
    for scene in drawn:
        assert np.sum([t.mask for t in scene.things], axis=0).max() == 1
        for thing in scene.things:
            assert thing.mask.shape == (128, 128)
            assert thing.mask.sum() >= 150
            x0, y0, x1, y1 = thing.box
            ys, xs = np.nonzero(thing.mask)
            assert (x0, y0, x1, y1) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        union = np.any([t.mask for t in scene.things], axis=0)
        np.testing.assert_array_equal(np.any([scene.mask(c) for c in scene.classes], axis=0), union)
        absent = next(c for c in range(12) if c not in scene.classes)
        assert not scene.mask(absent).any()


def neighbours(mask):
    return [np.roll(mask, step, axis) for axis in (0, 1) for step in (-1, 1)]


def test_things_lie_before_one_another(drawn):
    touching = sum(
        any((near & other.mask).any() for near in neighbours(thing.mask) for other in scene.things[k + 1 :])
        for scene in drawn
        for k, thing in enumerate(scene.things)
    )
    assert touching > 0.1 * MANY


def test_the_mask_is_where_the_thing_is_seen(monkeypatch):
    """Two discs of pure colour, the second over the first: masks, colours and areas say the same."""
    discs = {
        "cat": lambda pen, _: pen.oval(0, 0, 1, 1, (255, 0, 0)),
        "dog": lambda pen, _: pen.oval(0, 0, 1, 1, (0, 0, 255)),
    }
    monkeypatch.setattr(scenes, "THINGS", {**THINGS, **discs})
    monkeypatch.setattr(scenes, "places", lambda *_: [(np.array([x, 64]), 20) for x in (50, 70)])
    for seed in range(20):
        scene = draw_scene(seed, ["cat", "dog"])
        pixels = np.asarray(scene.picture).astype(int)
        cat, dog = (thing.mask for thing in scene.things)
        for mask, channel in ((cat, 0), (dog, 2)):
            inside = np.logical_and.reduce([mask, *neighbours(mask)])
            assert (2 * pixels[..., channel] > pixels.sum(2) + 60)[inside].mean() > 0.99
        assert dog.sum() == pytest.approx(np.pi * 20**2, rel=0.03)  # whole: stretching keeps its area
        assert 0.4 * dog.sum() < cat.sum() < 0.75 * dog.sum()  # half hidden
        assert not (cat & dog).any()


def test_a_seed_draws_the_same_in_another_process():
    code = (
        "from relume.demo import draw_scene; import hashlib; print(hashlib.sha256(draw_scene(7).picture.tobytes()).hexdigest())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.strip() == hashlib.sha256(draw_scene(7).picture.tobytes()).hexdigest()
    assert draw_scene(7).picture.tobytes() != draw_scene(8).picture.tobytes()
    for a, b in zip(draw_scene(7).things, draw_scene(7).things, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)


def test_named_things_are_drawn():
    scene = draw_scene(3, ["dog", "cat", "dog"])
    assert [t.name for t in scene.things] == ["dog", "cat", "dog"]
    assert scene.classes == (CLASSES.index("cat"), CLASSES.index("dog"))


@pytest.mark.parametrize("names", [[], ["cat"] * 5, ["unicorn"]])
def test_what_cannot_be_drawn_is_said(names):
    with pytest.raises(InputError, match="one to 4 things out of bird, boat"):
        draw_scene(0, names)


def test_a_negative_seed_is_an_error():
    with pytest.raises(InputError, match="not below zero; got -1"):
        draw_scene(-1)


def test_an_edge_detector_does_not_find_the_things(drawn):
    """Most of the edges belong to no thing."""
    off = []
    for scene in drawn:
        things = np.any([t.mask for t in scene.things], axis=0)
        off.append(share(sobel(np.asarray(scene.picture).transpose(2, 0, 1)), ~things))
    assert np.mean(off) > 0.5
