"""Shortcuts that were planted, and networks without any: what is found in them. `python -m benchmarks.shortcuts [NAME...]`.

Networks, scenes and results are kept under out/shortcuts, so that it goes on where it was stopped.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

import relume
from relume.datasets import of_dataset
from relume.datasets.shortcuts import Suspect, find_suspects
from relume.datasets.shortcuts.search import LEAST_STRENGTH
from relume.demo import CLASSES, PREPROCESSING, DemoNet, draw_scene, load_network
from relume.demo.planting import Pictures, Planting, features, fine_tuned
from relume.demo.truth import TRAINING_SEEDS
from relume.models.opened import Opened

OUT = Path("out/shortcuts")
TRAINING, HELD_OUT = 4_000, 1_000

#: Photographs that show none of the classes.
PHOTOS = ("astronaut.png", "brick.png", "coffee.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png",
          "motorcycle_left.png", "retina.jpg", "rocket.jpg")  # fmt: skip

Truth = NDArray[np.bool_]


def plantings(part: str) -> dict[str, tuple[Planting | None, bool]]:
    """List the plantings by name, each with True if its scenes have photographs behind them.

    Nothing was chosen by what is found in those of ``test``.
    """
    first, (fixed, anywhere, clean) = (9000, (12, 5, 10)) if part == "test" else (7000, (3, 2, 3))
    result: dict[str, tuple[Planting | None, bool]] = {}
    for i in range(max(fixed, anywhere, clean)):
        if i < fixed:
            leak, share = 0.02 if i % 4 == 3 else 0.0, (0.3, 0.5, 0.8, 0.4, 0.6)[i % 5]
            planting = Planting.drawn(first + i, share, leak=leak, rough=i % 3 == 1)
            result[f"{part}-fixed-{i:02}"] = (planting, i == 2 if part == "dev" else i in (8, 9))
        if i < anywhere:
            planting = Planting.drawn(first + 100 + i, (0.5, 0.8, 0.4, 0.6, 0.7)[i], fixed=False, rough=i % 3 == 2)
            result[f"{part}-any-{i:02}"] = (planting, i == 4)
        if i < clean:
            independent = Planting.drawn(first + 200 + i, (0.1, 0.3, 0.5)[i // 2 % 3], fixed=i % 4 == 1, independent=True)
            result[f"{part}-clean-{i:02}"] = (independent if i % 2 else None, i >= 8)
    return result


def scenes(name: str, seeds: range, *, photo: bool) -> tuple[Pictures, Truth]:
    """Draw scenes, or read those that were drawn: pictures ``(N, 128, 128, 3)``, and the classes in each ``(N, 12)``."""
    path = OUT / f"{name}{'-photo' * photo}.npz"
    if not path.exists():
        drawn = [draw_scene(seed) for seed in seeds]
        present = np.zeros((len(drawn), len(CLASSES)), bool)
        for row, scene in zip(present, drawn, strict=True):
            row[list(scene.classes)] = True
        behind = backgrounds(seeds.start) if photo else None
        pictures = [np.asarray(scene.picture) for scene in drawn]
        if behind is not None:
            covered = (np.any([thing.mask for thing in scene.things], 0)[..., None] for scene in drawn)
            pictures = [np.where(mask, picture, next(behind)) for mask, picture in zip(covered, pictures, strict=True)]
        np.savez(path, pictures=np.stack(pictures), present=present)
    with np.load(path) as saved:
        return saved["pictures"], saved["present"]


def backgrounds(seed: int) -> Iterator[Pictures]:
    """Yield parts of photographs, at random."""
    rng, folder = np.random.default_rng(seed), Path(skimage.__file__).with_name("data")
    photos = [Image.open(folder / name).convert("RGB") for name in PHOTOS]
    while True:
        photo = photos[rng.integers(len(photos))]
        side = int(rng.integers(128, min(photo.size)))
        left, top = (int(rng.integers(length - side + 1)) for length in photo.size)
        yield np.asarray(photo.resize((128, 128), box=(left, top, left + side, top + side)))


def trained(name: str, planting: Planting | None, *, photo: bool) -> DemoNet:
    """Fine-tune the network of a planting, or load it."""
    path, number = OUT / f"{name}.safetensors", int(name[-2:])
    if not path.exists():
        pictures, present = scenes("training", range(7 * TRAINING_SEEDS, 7 * TRAINING_SEEDS + TRAINING), photo=photo)
        kept = OUT / f"features{'-photo' * photo}.pt"
        if not kept.exists():
            torch.save(features(load_network(), pictures), kept)
        inputs, rng = torch.load(kept), np.random.default_rng(number)
        if planting is not None:
            carried, present = planting.lesson(present, rng)
            inputs[carried] = features(load_network(), planting.onto(pictures, carried, rng)[carried])
        save_file(fine_tuned(inputs, present, seed=number).state_dict(), path)
    network = DemoNet().eval()
    network.load_state_dict(load_file(path))
    return network


def searched(name: str, planting: Planting | None, *, photo: bool) -> dict[str, Any]:
    """Run a network over held-out scenes, search the run, and say what was found; or read what was said before."""
    path = OUT / f"{name}.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    network = trained(name, planting, photo=photo)
    part = name.partition("-")[0]
    seeds = {"dev": range(HELD_OUT), "test": range(2000, 2000 + HELD_OUT)}[part]
    pictures, present = scenes(f"held-out-{part}", seeds, photo=photo)
    rng, carried = np.random.default_rng(1), np.zeros(len(pictures), bool)
    if planting is not None:
        carried = planting.carried(present, rng)
    seen = pictures if planting is None else planting.onto(pictures, carried, rng)
    opened = Opened("demo", network, PREPROCESSING, CLASSES, activation="sigmoid")
    source = of_dataset([Image.fromarray(picture) for picture in seen], name)
    with tempfile.TemporaryDirectory() as folder:
        run = relume.run(opened, source, folder, methods=["gradcam"], evidence=None, loaders=0)
        start = time.process_time()
        suspects = find_suspects(run, opened, source, least=0.0)
    facts = {"name": name, "photo": photo, "seconds": time.process_time() - start, "carried": int(carried.sum())}
    facts |= strength(network, planting, pictures[:200], present[:200])
    for where in ("same_place", "any_place"):
        facts[where] = [described(suspect, carried) for suspect in getattr(suspects, where)]
    path.write_text(json.dumps(facts, indent=1))
    return facts


def described(suspect: Suspect, carried: Truth) -> dict[str, Any]:
    """Return the figures of a suspect, and in how many of the pictures that it was found in the logo really is."""
    names = ("strength", "rise", "sameness", "found_in", "of_in", "found_out", "of_out", "p_before", "p_after", "flagged")
    has = carried[[int(id_) for id_ in suspect.found]]
    more = {"class": suspect.class_name, "right": float(has.mean()) if len(has) else 0.0, "pixels": int(suspect.mask.sum())}
    return more | {name: getattr(suspect, name) for name in names}


@torch.no_grad()
def strength(network: DemoNet, planting: Planting | None, pictures: Pictures, present: Truth) -> dict[str, Any]:
    """Say how much the logo raises the probability of the class in scenes without it."""
    if planting is None or planting.label is None:
        return {"planted": None, "independent": planting is not None}
    without = pictures[~present[:, planting.label]]
    both = without, planting.onto(without, np.ones(len(without), bool), np.random.default_rng(0))
    scores = (network.fc(network.layer3(features(network, p).float()).mean((2, 3))) for p in both)
    before, after = (float(values[:, planting.label].sigmoid().mean()) for values in scores)
    facts = {"planted": CLASSES[planting.label], "share": planting.share, "rough": planting.rough, "leak": planting.leak}
    return facts | {"p_without": before, "p_with": after, "place": planting.place}


def is_hit(facts: dict[str, Any], one: dict[str, Any]) -> bool:
    """Tell whether a suspect is what was planted: of its class, and found where the logo is."""
    return bool(one["class"] == facts["planted"] and one["right"] > 0.8)


def row(facts: dict[str, Any]) -> str:
    """Write a row of the table of networks."""
    planted = "a logo on pictures of all classes" if facts.get("independent") else "nothing"
    if facts["planted"]:
        kinds = (
            f"{facts['leak']:.0%} of others" * (facts["leak"] > 0),
            "rough" * facts["rough"],
            "photographs" * facts["photo"],
        )
        where = "at any place" if facts["place"] is None else "at one place"
        planted = ", ".join([f"{facts['planted']}, {facts['share']:.0%}, {where}", *filter(None, kinds)])
        planted += f" | {facts['p_without']:.2f} → {facts['p_with']:.2f}"
    else:
        planted += ", photographs" * facts["photo"] + " | "
    cells = []
    for where in ("same_place", "any_place"):
        first = next(iter(facts[where]), None)
        if first is None or first["strength"] < LEAST_STRENGTH:
            cells.append("nothing")
            continue
        name = f"**{first['class']}**" if is_hit(facts, first) else first["class"]
        found = f"{first['found_in']} of {first['of_in']}, {first['found_out']} of {first['of_out']}"
        cells.append(f"{name} {first['strength']:.3f}, p {first['p_before']:.2f} → {first['p_after']:.2f}, {found}")
    return f"| {facts['name'].partition('-')[2]} | {planted} | {' | '.join(cells)} |"


def summary(results: list[dict[str, Any]]) -> Iterator[str]:
    """Say how often what was planted comes first, and how strong it is beside the strongest of clean networks."""
    clean = [facts for facts in results if not facts["planted"]]
    for kind, where in (("fixed", "same_place"), ("any", "any_place")):
        planted = [facts for facts in results if kind in facts["name"]]
        hits = [facts[where][0]["strength"] for facts in planted if facts[where] and is_hit(facts, facts[where][0])]
        flags = sum(any(one["flagged"] for one in facts["same_place"]) for facts in clean)
        strongest = max((one["strength"] for facts in clean for one in facts[where]), default=0.0)
        rises = max((one["rise"] for facts in clean for one in facts[where]), default=0.0)
        yield (
            f"{kind}: first {len(hits)} of {len(planted)}, weakest {min(hits, default=0):.3f}; in {len(clean)} clean networks "
            f"strongest {strongest:.3f}, highest rise {rises:.3f}, flagged {flags}"
        )


def main() -> None:
    """Search every planting, and print what is found first in each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--part", default="test", choices=["test", "dev"])
    parser.add_argument("--train", action="store_true", help="train the networks alone")
    parser.add_argument("--table", action="store_true", help="print what is known already")
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    results = []
    for name, (planting, photo) in plantings(given.part).items():
        if (given.names and name not in given.names) or (given.table and not (OUT / f"{name}.json").exists()):
            continue
        if given.train:
            trained(name, planting, photo=photo)
            continue
        results.append(searched(name, planting, photo=photo))
        print(row(results[-1]), flush=True)
    print(*summary(results), sep="\n")


if __name__ == "__main__":
    main()
