"""Signals, bands and volumes: drawn alike from a seed, with true masks, and networks whose maps fall on what is asked for."""

import re
from pathlib import Path

import numpy as np
import pytest
from benchmarks import recordings
from torch.utils.data import DataLoader

from relume import demo
from relume.demo import BANDS, SHOWN_IN, bands, draw_bands, draw_signal, draw_volume, signals, train, volumes
from relume.demo.truth import places
from relume.demo.worlds import WORLDS
from relume.errors import InputError, ModelError

HERE = Path(demo.__file__).parent
SHAPES = {"signals": (1, 512), "bands": (5, 64, 64), "volumes": (1, 24, 32, 40)}
DRAWN = {"signals": draw_signal, "bands": draw_bands, "volumes": draw_volume}
ROOMS = {"signals": signals, "bands": bands, "volumes": volumes}
NAMES = list(SHAPES)


@pytest.mark.parametrize("name", NAMES)
def test_a_scene_is_drawn_alike_with_true_masks(name):
    draw, shape = DRAWN[name], SHAPES[name]
    scenes = [draw(seed) for seed in range(40)]
    assert {len(scene.things) for scene in scenes} == {1, 2, 3}
    assert {index for scene in scenes for index in scene.classes} == {0, 1, 2}
    for scene in scenes:
        assert (scene.values.shape, scene.values.dtype) == (shape, np.float32)
        masks = np.array([thing.mask for thing in scene.things])
        assert masks.shape[1:] == shape[1:]
        assert masks.sum(0).max() == 1
        assert masks.reshape(len(masks), -1).any(1).all()
        assert len(scene.classes) == len(scene.things)
        np.testing.assert_array_equal(np.any([scene.mask(index) for index in range(3)], axis=0), masks.any(0))
        for thing in scene.things:  # all of the mask, and nothing more
            lows, highs = thing.box[: masks.ndim - 1][::-1], thing.box[masks.ndim - 1 :][::-1]
            inside = thing.mask[tuple(map(slice, lows, highs))]
            assert inside.sum() == thing.mask.sum()
            assert all(inside.any(tuple(set(range(inside.ndim)) - {axis}))[[0, -1]].all() for axis in range(inside.ndim))
    again = draw(7)
    np.testing.assert_array_equal(again.values, scenes[7].values)
    assert not np.array_equal(draw(8).values, again.values)
    label = again.labels[1]
    assert draw(3, [label, label]).classes == (1,)
    with pytest.raises(InputError, match=f"one to 3 things out of {', '.join(again.labels)}; got cat"):
        draw(0, ["cat"])
    with pytest.raises(InputError, match="not below zero; got -1"):
        draw(-1)


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_is_where_the_thing_adds_to_the_scene(name, monkeypatch):
    """The same seed without the things is the background, since that is drawn first."""
    thing, added = ROOMS[name]._thing, []
    monkeypatch.setattr(ROOMS[name], "_thing", lambda *args: added.append(thing(*args)) or added[-1])
    scene = DRAWN[name](5, None)
    background = scene.values - sum(values for values, _ in added)
    for values, mask in added:
        strength = np.abs(values).reshape(-1, *mask.shape).max(0)
        assert strength[mask].mean() > 8 * strength[~mask].mean()
        assert strength[~mask].max() < 0.6 * strength.max()
    assert np.abs(background).mean() < np.abs(scene.values).mean()


def test_a_class_of_the_bands_shows_in_its_band_alone():
    for name, band in SHOWN_IN.items():
        shown = np.zeros(len(BANDS))
        for seed in range(12):
            scene = draw_bands(seed, [name])
            mask = scene.things[0].mask
            shown += scene.values[:, mask].mean(1) - scene.values[:, ~mask].mean(1)
        assert shown[band] > 8
        assert np.abs(np.delete(shown, band)).max() < 0.4 * shown[band]


def test_places_lie_inside_and_apart():
    rng = np.random.default_rng(0)
    for sides in ((100,), (60, 80), (40, 50, 60)):
        chosen = places(3, sides, 5, 12, 1.0, rng)
        for k, (centre, size) in enumerate(chosen):
            assert 5 <= size <= 12
            assert (centre >= 0.8 * size).all()
            assert (centre <= np.array(sides) - 0.8 * size).all()
            assert all(np.linalg.norm(centre - other) >= size + radius for other, radius in chosen[:k])


@pytest.mark.parametrize("name", NAMES)
def test_a_network_is_small_and_as_good_as_its_card_says(name):
    world, (_, load) = WORLDS[name], recordings.WORLDS[name]
    assert (HERE / f"{name}.safetensors").stat().st_size < 100_000
    card = (HERE / f"{name}.md").read_text()
    assert f"`python -m relume.demo.train {name}` on {world.steps * world.batch:,} scenes" in card
    said = {label: float(value) for label, value in re.findall(r"\| ([a-z]+) \| ([0-9.]+) \|", card)}
    assert said.keys() == set(world.labels)
    assert min(said.values()) > 0.97
    found = train.precision(load(), DataLoader(train._Scenes(world, range(100)), batch_size=50), world.labels)
    assert found == pytest.approx(said, abs=0.03)
    with pytest.raises(ModelError, match=f"holds no weights of the network of {name}"):
        load(HERE / "scenes.safetensors")


@pytest.mark.parametrize("name", NAMES)
def test_maps_fall_on_what_is_asked_for(name):
    rows = recordings.measured(name, 6).rows
    guided, coarse, plain = (rows[key] for key in ("guided_gradcam", "gradcam", "gradient"))
    assert guided["right_thing"].mean > max(0.8, rows["guided_backprop"]["right_thing"].mean, plain["right_thing"].mean)
    assert guided["mass_accuracy"].mean > max(coarse["mass_accuracy"].mean, 2 * rows["sobel_edges"]["mass_accuracy"].mean)


def test_gradient_x_input_names_the_band():
    assert recordings.named_bands(demo.load_band_network(), 10)["sum of magnitudes"] >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_gives_a_network_that_is_as_good(name, tmp_path, monkeypatch):
    """Trained again, on scenes of another seed: as accurate, and its maps fall on what is asked for."""
    trained = train.train(tmp_path / "checkpoint.pt", name, seed=1)
    world = WORLDS[name]
    precisions = train.precision(trained, train._batches(world, range(500)), world.labels)
    assert min(precisions.values()) > 0.95
    monkeypatch.setitem(recordings.WORLDS, name, (DRAWN[name], lambda: trained))
    rows = recordings.measured(name, 30).rows
    assert rows["guided_gradcam"]["right_thing"].mean > 0.8
    assert rows["guided_gradcam"]["right_thing"].mean > rows["gradient"]["right_thing"].mean
    if name == "bands":
        assert recordings.named_bands(trained, 30)["sum of magnitudes"] > 0.9
