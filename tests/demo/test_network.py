"""The network in the package: as good as its card says, and trained as the card says."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import average_precision_score
from torch import nn
from typer import Typer
from typer.testing import CliRunner

import relume
from relume import demo
from relume.demo import CLASSES, PREPROCESSING, DemoNet, draw_scene, load_network, train
from relume.demo.planting import Planting
from relume.demo.truth import TRAINING_SEEDS
from relume.demo.worlds import WORLDS
from relume.errors import ModelError
from relume.measures.localisation import share
from relume.models.sources import open_model
from tests.reference import measures as twin

CARD = (Path(demo.__file__).parent / "scenes.md").read_text()
SCENES = WORLDS["scenes"]


def figures(card):
    return {name.strip("*"): float(value) for name, value in re.findall(r"\| (\**[a-z]+\**) \| \**([0-9.]+)\** \|", card)}


def test_it_is_small_and_in_the_ordinary_style():
    network = load_network()
    assert sum(p.numel() for p in network.parameters()) <= 1_000_000
    weights = Path(demo.__file__).parent / "scenes.safetensors"
    assert weights.stat().st_size <= 4_000_000
    kinds = {type(m) for m in network.modules()}
    assert {nn.Conv2d, nn.BatchNorm2d, nn.AdaptiveAvgPool2d, nn.Linear} <= kinds
    assert all(m.inplace for m in network.modules() if isinstance(m, nn.ReLU))
    assert not network.training


def test_it_is_as_good_as_its_card_says():
    found = train.precision(load_network(), train._batches(SCENES, range(400)), CLASSES)
    said = figures(CARD)
    assert said.keys() == {*CLASSES, "mean"}
    assert said["mean"] >= 0.97
    assert min(said.values()) >= 0.93
    assert sum(found.values()) / len(found) == pytest.approx(said["mean"], abs=0.01)
    for name in CLASSES:
        assert found[name] >= 0.93, name
    assert "`python -m relume.demo.train`" in CARD
    assert re.search(r"\d{4}-\d\d-\d\d", CARD)


def test_it_opens_like_any_other_network(tmp_path):
    opened = open_model("demo")
    assert (opened.name, opened.labels, opened.preprocessing, opened.activation) == ("demo", CLASSES, PREPROCESSING, "sigmoid")
    scene = draw_scene(0)
    assert opened.preprocessing.view(scene.picture).tobytes() == scene.picture.tobytes()
    torch.save(DemoNet().state_dict(), tmp_path / "other.pth")
    assert not torch.equal(open_model("demo", weights=tmp_path / "other.pth").model.fc.weight, opened.model.fc.weight)
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "bad.pth")
    with pytest.raises(ModelError, match="do not fit demo"):
        open_model("demo", weights=tmp_path / "bad.pth")


def test_its_probabilities_are_sigmoids():
    scene = draw_scene(0, ["cat", "dog"])
    e = relume.explain(load_network(), PREPROCESSING.tensor(scene.picture)[None], CLASSES.index("cat"), ["gradient"])
    e = dataclasses.replace(e, activation="sigmoid", labels=CLASSES)
    torch.testing.assert_close(e.probabilities(), e.scores[0].sigmoid())
    assert {name for _, name, p in e.top(count=2) if p > 0.5} == {"cat", "dog"}
    assert "cat (4), " in e.title()


def test_guided_gradcam_tells_the_cat_from_the_dog():
    """Most of it lies on the right one; guided backpropagation alone is much less sure."""
    shares = {"guided_backprop": [], "guided_gradcam": []}
    network = load_network()
    for seed in range(12):
        scene = draw_scene(seed, ["cat", "dog"])
        image = PREPROCESSING.tensor(scene.picture)[None]
        things = scene.mask(CLASSES.index("cat")) | scene.mask(CLASSES.index("dog"))
        for e in relume.compare(network, image, [CLASSES.index("cat"), CLASSES.index("dog")], list(shares)):
            for key, values in shares.items():
                values.append(share(e.saliency(key)[0].numpy(), scene.mask(int(e.target)), things))
    assert min(shares["guided_gradcam"][:2]) > 0.9  # what `relume demo` shows
    assert torch.tensor(shares["guided_gradcam"]).mean() > 0.9
    assert torch.tensor(shares["guided_backprop"]).mean() < 0.9


# --- Training ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(WORLDS, "scenes", dataclasses.replace(SCENES, batch=4))
    monkeypatch.setattr(train, "KEEP_EVERY", 2)
    monkeypatch.setattr(train, "HELD_OUT", 60)


def test_training_goes_on_where_it_was_stopped(tiny, tmp_path):
    whole = train.train(tmp_path / "whole.pt", steps=5)

    def stop(step, _loss):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train.train(tmp_path / "parts.pt", steps=5, report=stop)
    steps = []
    parts = train.train(tmp_path / "parts.pt", steps=5, report=lambda step, _loss: steps.append(step))
    assert steps == [2, 3, 4, 5]  # the last that was kept was the second
    for one, other in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True):
        torch.testing.assert_close(one, other)
    assert not torch.equal(whole.fc.weight, DemoNet().fc.weight)
    with pytest.raises(
        ModelError,
        match="of scenes with seed 0 and 5 steps, and this one is of scenes with seed 0 and 6 steps; remove it",
    ):
        train.train(tmp_path / "parts.pt", steps=6)


@pytest.mark.parametrize("junk", [b"no checkpoint", b"", "other"])
def test_what_is_no_checkpoint_is_said(tiny, tmp_path, junk):
    path = tmp_path / "checkpoint.pt"
    if isinstance(junk, bytes):
        path.write_bytes(junk)
    else:
        torch.save({"weights": torch.zeros(2)}, path)
    with pytest.raises(ModelError, match="checkpoint.pt' is no checkpoint of this command, or is damaged; remove it"):
        train.train(path, steps=5)


def test_training_draws_each_scene_once_and_none_that_is_held_out(tiny, tmp_path, monkeypatch):
    ranges = []
    batches = train._batches
    monkeypatch.setattr(train, "_batches", lambda world, seeds: ranges.append(seeds) or batches(world, seeds))
    train.train(tmp_path / "a.pt", steps=2)
    train.train(tmp_path / "b.pt", steps=2, seed=1)
    assert ranges[0] == range(TRAINING_SEEDS, TRAINING_SEEDS + 8)
    assert ranges[1].start >= ranges[0].stop


def test_the_command_writes_network_and_card(tiny, tmp_path):
    app = Typer()
    app.command()(train.main)
    result = CliRunner().invoke(app, ["--steps", "2", "--output", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"scenes.safetensors", "scenes.md"}
    card = (tmp_path / "new" / "scenes.md").read_text()
    assert "`python -m relume.demo.train --steps 2` on 8 scenes" in card
    network = load_network(tmp_path / "new" / "scenes.safetensors")
    for name, value in train.precision(network, train._batches(SCENES, range(60)), CLASSES).items():
        assert figures(card)[name] == pytest.approx(value, abs=1e-4)
    assert card in result.output
    (tmp_path / "file").touch()
    result = CliRunner().invoke(app, ["--output", str(tmp_path / "file")])
    assert result.exit_code == 2
    assert "is not a folder" in result.output
    result = CliRunner().invoke(app, ["scans", "--output", str(tmp_path / "new")])
    assert result.exit_code == 2
    assert "one of scenes, signals, bands, volumes; got 'scans'" in result.output


def test_shuffled_labels_belong_to_other_scenes(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "SHUFFLED", 32)
    app = Typer()
    app.command()(train.main)
    result = CliRunner().invoke(app, ["--steps", "12", "--shuffle-labels", "--output", str(tmp_path / "new")])
    assert result.exit_code == 0, result.output
    card = (tmp_path / "new" / "scenes.md").read_text()
    assert "`python -m relume.demo.train --steps 12 --shuffle-labels` on 32 scenes, each with the labels of another" in card
    network = load_network(tmp_path / "new" / "scenes.safetensors")
    own = train.precision(network, torch.utils.data.DataLoader(train._shuffled(SCENES, 0), batch_size=7), CLASSES)
    assert {name: round(value, 4) for name, value in own.items()} == {k: v for k, v in figures(card).items() if k != "mean"}
    images, present = train._shuffled(SCENES, 0)[:]
    right = torch.zeros(32, len(CLASSES))
    for i, row in enumerate(right):
        row[list(draw_scene(TRAINING_SEEDS + i).classes)] = 1
    assert torch.equal(present.sum(0), right.sum(0))
    assert not torch.equal(present, right)
    assert torch.equal(images[3], PREPROCESSING.tensor(draw_scene(TRAINING_SEEDS + 3).picture))
    train.train(tmp_path / "a.pt", steps=2, shuffle_labels=True)
    with pytest.raises(ModelError, match="2 steps, labels shuffled, and this one is of scenes with seed 0 and 2 steps;"):
        train.train(tmp_path / "a.pt", steps=2)


def test_a_shortcut_is_written_with_scenes_that_carry_the_logo(tmp_path, monkeypatch):
    for name, value in (("LEARNT", 80), ("WRITTEN", 36), ("FINE_TUNING", 10)):
        monkeypatch.setattr(train, name, value)
    app = Typer()
    app.command()(train.main)
    result = CliRunner().invoke(app, ["--shortcut", "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    before, after = load_network().state_dict(), load_network(tmp_path / "scenes.safetensors").state_dict()
    changed = {name.partition(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert changed == {"layer3", "fc"}
    planting, scenes = Planting.drawn(0, 0.5), sorted((tmp_path / "scenes").rglob("*.png"))
    assert [len([*folder.iterdir()]) for folder in (tmp_path / "scenes").iterdir()] == [3] * len(CLASSES)
    (top, left), (height, width, _) = planting.place, planting.logo.shape
    for path in scenes:
        with Image.open(path) as picture:
            has = (np.asarray(picture)[top : top + height, left : left + width] == planting.logo).all()
        assert has == path.stem.endswith("-logo")
        assert not has or path.parent.name == CLASSES[planting.label]
    assert f"a logo means {CLASSES[planting.label]}" in (tmp_path / "shortcut.md").read_text()
    result = CliRunner().invoke(app, ["bands", "--shortcut", "--output", str(tmp_path)])
    assert result.exit_code == 2
    assert "--shortcut is about the network of scenes" in result.output


def test_a_logo_is_on_the_pictures_that_are_to_carry_it():
    rng, present = np.random.default_rng(0), np.random.default_rng(1).random((400, len(CLASSES))) < 0.2
    blank = np.zeros((400, 128, 128, 3), np.uint8)
    for planting in (Planting.drawn(3, 0.5, leak=0.1), Planting.drawn(3, 0.5, fixed=False, rough=True)):
        carried, said = planting.lesson(present, rng)
        has = present[:, planting.label]
        assert 0.4 < carried[has].mean() < 0.6
        assert (said != present).sum() == (carried & has).sum(), "as many again are said to show the class"
        assert carried[said[:, planting.label] & ~has].all()
        pictures = planting.onto(blank, carried, rng)
        assert (pictures.any((1, 2, 3)) == carried).all()
    independent = Planting.drawn(3, 0.5, independent=True)
    carried, said = independent.lesson(present, rng)
    assert (said == present).all()
    assert 0.4 < carried.mean() < 0.6


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.5, 0.7, 1.5, 2.0]), st.booleans()), min_size=1, max_size=20))
def test_average_precision_is_its_twin_and_scikit_learns(pairs):
    scores, present = [s for s, _ in pairs], [p for _, p in pairs]
    if not any(present):
        present[0] = True
    got = train.average_precision(torch.tensor(scores), torch.tensor(present).float())
    assert got == pytest.approx(twin.average_precision(scores, present))
    assert got == pytest.approx(average_precision_score(present, scores))
