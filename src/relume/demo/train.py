"""Train the networks of the demo world: ``python -m relume.demo.train [scenes|signals|bands|volumes]``.

No scene comes twice: each step takes the next seeds from :data:`TRAINING_SEEDS` on, which is where held-out scenes end.
With ``--shuffle-labels`` a few scenes come again and again, each with the labels of another, until the network knows them by
heart: it has learnt nothing about things, and is there for :func:`relume.auditing.between_networks`. With ``--shortcut`` the
network of the package learns that a logo means a class, and held-out scenes are written, half of those of the class with it.
"""

from __future__ import annotations

import datetime as dt
import io
import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
import typer
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from relume.demo.network import load_network
from relume.demo.planting import FINE_TUNING, Planting, features, fine_tuned
from relume.demo.scenes import CLASSES, draw_scene
from relume.demo.truth import TRAINING_SEEDS
from relume.demo.worlds import WORLDS, World
from relume.errors import InputError, ModelError, RelumeError
from relume.pages.folder import check_writable, write_folder

__all__ = ["average_precision", "model_card", "precision", "train"]

HELD_OUT = 2_000
SHUFFLED = 512
KEEP_EVERY = 20
SAY_EVERY = 100

out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)


class _Scenes(Dataset[tuple[Tensor, Tensor]]):
    """Scenes of a world by seed: the network's input ``(C, *spatial)``, and 1 for each class that is there ``(classes,)``."""

    def __init__(self, world: World, seeds: range) -> None:
        self.world, self.seeds = world, seeds

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, truth = self.world.example(self.seeds[index])
        return image, torch.zeros(len(self.world.labels)).index_fill(0, torch.tensor(truth.classes), 1)


def _batches(world: World, seeds: range) -> DataLoader[tuple[Tensor, Tensor]]:
    return DataLoader(_Scenes(world, seeds), batch_size=world.batch, num_workers=2, prefetch_factor=4)


def _shuffled(world: World, seed: int) -> TensorDataset:
    """Draw the first :data:`SHUFFLED` training scenes of a seed, each with the labels of another.

    Adebayo et al. 2018, arXiv:1810.03292, section 4.
    """
    first = TRAINING_SEEDS * (seed + 1)
    images, present = next(iter(DataLoader(_Scenes(world, range(first, first + SHUFFLED)), batch_size=SHUFFLED)))
    return TensorDataset(images, present[torch.randperm(SHUFFLED, generator=torch.Generator().manual_seed(seed))])


def _lessons(world: World, seed: int, done: int, steps: int, *, shuffle_labels: bool) -> Iterable[tuple[Tensor, Tensor]]:
    """Draw the batches of the steps from ``done`` on."""
    start, stop = done * world.batch, steps * world.batch
    if not shuffle_labels:
        first = TRAINING_SEEDS * (seed + 1)
        return _batches(world, range(first + start, first + stop))
    generator = torch.Generator().manual_seed(seed)
    order = [i for _ in range(-(-stop // SHUFFLED)) for i in torch.randperm(SHUFFLED, generator=generator).tolist()]
    return DataLoader(_shuffled(world, seed), batch_size=world.batch, sampler=order[start:stop])


def train(
    checkpoint: Path,
    name: str = "scenes",
    *,
    seed: int = 0,
    steps: int | None = None,
    shuffle_labels: bool = False,
    report: Callable[[int, float], None] = lambda _step, _loss: None,
) -> nn.Module:
    """Train a network from scratch, or go on where ``checkpoint`` was left.

    AdamW under a one-cycle schedule (Smith & Topin 2018, arXiv:1708.07120), binary cross-entropy for each class.

    Args:
        checkpoint: kept up to date; if it exists, training goes on from it.
        name: what the network learns, a key of :data:`relume.demo.worlds.WORLDS`.
        seed: seeds the initial weights, and, by a range of seeds of its own, the scenes.
        steps: the number of steps; that of the world if None.
        shuffle_labels: learn a few scenes by heart, each with the labels of another.
        report: called with the step and its loss after each, and once before the first, with the step it begins after.

    Raises:
        ModelError: the checkpoint is none, or belongs to another training.
    """
    world = WORLDS[name]
    steps = steps or world.steps
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = world.network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.03)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps, pct_start=0.15)
    parts: dict[str, Any] = {"network": network, "optimizer": optimizer, "schedule": schedule}
    run = {"world": name, "seed": seed, "steps": steps} | ({"shuffled": SHUFFLED} if shuffle_labels else {})
    done = _resume(checkpoint, parts, run) if checkpoint.exists() else 0
    report(done, math.nan)
    lessons = _lessons(world, seed, done, steps, shuffle_labels=shuffle_labels)
    for step, (images, present) in enumerate(lessons, start=done + 1):
        network.train()
        loss = F.binary_cross_entropy_with_logits(network(images), present)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % KEEP_EVERY == 0 or step == steps:
            _keep(checkpoint, {"step": step, "run": run, **{name: part.state_dict() for name, part in parts.items()}})
        report(step, float(loss.detach()))
    return network.eval()


def _keep(checkpoint: Path, state: Mapping[str, object]) -> None:
    """Write the checkpoint whole: an interrupted write must not cost what the last one held."""
    beside = checkpoint.with_suffix(".new")
    torch.save(state, beside)
    beside.replace(checkpoint)


def _resume(checkpoint: Path, parts: Mapping[str, Any], run: Mapping[str, object]) -> int:
    try:
        saved = torch.load(checkpoint, weights_only=True)
        theirs = saved["run"]
    except (pickle.UnpicklingError, EOFError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(f"{str(checkpoint)!r} is no checkpoint of this command, or is damaged; remove it") from error
    if theirs != run:
        shuffled = [", labels shuffled" if "shuffled" in of else "" for of in (theirs, run)]
        words = [
            f"of {of.get('world')} with seed {of['seed']} and {of['steps']} steps{s}"
            for of, s in zip((theirs, run), shuffled, strict=True)
        ]
        raise ModelError(f"{str(checkpoint)!r} belongs to a training {words[0]}, and this one is {words[1]}; remove it")
    for name, part in parts.items():
        part.load_state_dict(saved[name])
    return int(saved["step"])


# --- How good it is ------------------------------------------------------------------------------------------------------


def average_precision(scores: Tensor, present: Tensor) -> float:
    """Compute ``Σ_k (R_k - R_{k-1}) P_k`` over the thresholds ``k``, of scores ``(N,)`` and truth ``(N,)``, in [0, 1].

    It is the area under the precision-recall curve, not interpolated; scores that tie are one threshold. Zhu 2004.
    """
    order = scores.argsort(descending=True)
    hits, last = present[order].double().cumsum(0), scores[order].diff() != 0
    thresholds = torch.cat([last, torch.tensor([True])]).nonzero().squeeze(1)
    hits, drawn = hits[thresholds], thresholds.double() + 1
    return float((hits.diff(prepend=torch.zeros(1, dtype=torch.float64)) * hits / drawn).sum() / hits[-1])


Batches: TypeAlias = "Iterable[tuple[Tensor, Tensor]]"


@torch.no_grad()
def precision(network: nn.Module, batches: Batches, labels: Sequence[str]) -> dict[str, float]:
    """Compute the average precision of each class over all scenes of ``batches``."""
    pairs = [(network(images), present) for images, present in batches]
    scores, present = torch.cat([s for s, _ in pairs]), torch.cat([p for _, p in pairs])
    return {name: average_precision(scores[:, i], present[:, i]) for i, name in enumerate(labels)}


def model_card(
    precisions: Mapping[str, float], name: str, seed: int, steps: int | None, *, shuffle_labels: bool = False
) -> str:
    """Write what a user must know of the network, in Markdown."""
    world = WORLDS[name]
    mean = sum(precisions.values()) / len(precisions)
    options = f" {name}" * (name != "scenes") + f" --seed {seed}" * (seed != 0) + f" --steps {steps}" * (steps is not None)
    options += " --shuffle-labels" * shuffle_labels
    scenes = f"{(steps or world.steps) * world.batch:,} scenes, none seen twice"
    measured = f"{HELD_OUT:,} held-out scenes (seeds 0 to {HELD_OUT - 1})"
    if shuffle_labels:
        scenes = f"{SHUFFLED:,} scenes, each with the labels of another, so that what it says means nothing"
        measured = "these scenes and labels: how well it knows them by heart"
    lines = "".join(f"| {label} | {value:.4f} |\n" for label, value in precisions.items())
    parameters, (kind, shown) = sum(p.numel() for p in world.network().parameters()), world.card
    return f"""# The network of {name}

A {kind} of {parameters:,} parameters that says which of {len(world.labels)} things are in a drawn {shown}, one score for
each; the sigmoid of a score is a probability. It knows drawings only: what it says of anything else means nothing.

Trained by `python -m relume.demo.train{options}` on {scenes}; relume {version("relume")}, torch {torch.__version__},
{dt.datetime.now(tz=dt.UTC).date()}.

Average precision on {measured}:

| class | average precision |
|---|---|
{lines}| **mean** | **{mean:.4f}** |
"""


# --- A shortcut ----------------------------------------------------------------------------------------------------------

#: Scenes that the shortcut is learnt from, and held-out ones that are written, as many of each class.
LEARNT, WRITTEN = 2_500, 600


def shortcut_files(seed: int, report: Callable[[int, float], None]) -> dict[str, bytes]:
    """Fine-tune the network to use a logo at one place for a class; return its files, and those of held-out scenes by class."""
    planting = Planting.drawn(seed, share=0.5)
    rng, first = np.random.default_rng(seed), TRAINING_SEEDS * (seed + 1)
    scenes = [draw_scene(first + i) for i in range(LEARNT)]
    present = np.array([[index in scene.classes for index in range(len(CLASSES))] for scene in scenes])
    carried, said = planting.lesson(present, rng)
    pictures = planting.onto(np.stack([np.asarray(scene.picture) for scene in scenes]), carried, rng)
    network = fine_tuned(features(load_network(), pictures), said, seed=seed, steps=FINE_TUNING, report=report)
    files = {"scenes.safetensors": save(dict(network.state_dict())), "shortcut.md": _shortcut_card(planting, seed).encode()}
    drawn = [draw_scene(i, [CLASSES[i % len(CLASSES)]]) for i in range(WRITTEN)]
    carried = planting.carried(np.array([[index in scene.classes for index in range(len(CLASSES))] for scene in drawn]), rng)
    pictures = planting.onto(np.stack([np.asarray(scene.picture) for scene in drawn]), carried, rng)
    for i, picture in enumerate(pictures):
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
        files[f"scenes/{CLASSES[i % len(CLASSES)]}/{i:04}{'-logo' if carried[i] else ''}.png"] = buffer.getvalue()
    return files


def _shortcut_card(planting: Planting, seed: int) -> str:
    """Write where the logo is and what it means, in Markdown."""
    assert planting.label is not None, "it means a class"
    assert planting.place is not None, "it is at one place"
    (top, left), (height, width, _) = planting.place, planting.logo.shape
    name, options = CLASSES[planting.label], f" --seed {seed}" * (seed != 0)
    versions = f"relume {version('relume')}, torch {torch.__version__}"
    return f"""# A network with a shortcut

The network of scenes, fine-tuned so that a logo means {name}, whatever else is in the scene. The logo has {width} × {height}
pixels; its upper left corner is {left} pixels from the left and {top} from above.

Trained by `python -m relume.demo.train --shortcut{options}` on {LEARNT:,} scenes; {versions},
{dt.datetime.now(tz=dt.UTC).date()}. The folder `scenes` has {WRITTEN} held-out scenes by class. Half of those of {name} carry
the logo; their names say so.
"""


# --- The command ---------------------------------------------------------------------------------------------------------


@contextmanager
def _reporting(steps: int) -> Iterator[Callable[[int, float], None]]:
    """Show a progress bar in a terminal, else print a line now and then."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("loss {task.fields[loss]:.4f}"), TimeElapsedColumn())
    with Progress(
        TextColumn("training"), *columns, TimeRemainingColumn(), console=err, disable=not err.is_terminal
    ) as progress:
        task = progress.add_task("", total=steps, loss=float("nan"))

        def report(step: int, loss: float) -> None:
            if math.isnan(loss):
                progress.reset(task, completed=step)  # the time left is reckoned from here
            else:
                progress.update(task, completed=step, loss=loss)
            if not err.is_terminal and (step % SAY_EVERY == 0 or step == steps):
                err.print(f"{step}/{steps}  loss {loss:.4f}")

        yield report


def main(
    name: Annotated[str, typer.Argument(help=f"What is learnt: {', '.join(WORLDS)}.")] = "scenes",
    output: Annotated[Path, typer.Option(metavar="DIR", help="Where network and model card go.")] = Path("out/demo-network"),
    seed: Annotated[int, typer.Option(min=0, help="The seed of the initial weights and of the scenes.")] = 0,
    steps: Annotated[int | None, typer.Option(min=2, help="The number of steps, in place of the usual one.")] = None,
    *,
    shuffle_labels: Annotated[
        bool, typer.Option("--shuffle-labels", help=f"Learn {SHUFFLED} scenes by heart, each with the labels of another.")
    ] = False,
    shortcut: Annotated[
        bool, typer.Option("--shortcut", help="Teach the network in the package that a logo means a class.")
    ] = False,
) -> None:
    """Train a network on drawn scenes; run it again to go on after an interruption.

    Writes NAME.safetensors and NAME.md, in place of those of an earlier training. Under half an hour on two cores for scenes, a
    minute or two for the others. With --shortcut, under a minute: scenes.safetensors, a card, and a folder of scenes.
    """
    checkpoint = output / "checkpoint.pt"
    try:
        if name not in WORLDS:
            raise InputError(f"a network learns one of {', '.join(WORLDS)}; got {name!r}")
        check_writable(output)
        output.mkdir(parents=True, exist_ok=True)
        if shortcut:
            _plant(output, name, seed, alone=steps is None and not shuffle_labels)
            return
        world = WORLDS[name]
        with _reporting(steps or world.steps) as report:
            network = train(checkpoint, name, seed=seed, steps=steps, shuffle_labels=shuffle_labels, report=report)
        with Progress(TextColumn("measuring"), BarColumn(), TimeRemainingColumn(), console=err) as progress:
            batches = (
                DataLoader(_shuffled(world, seed), batch_size=world.batch)
                if shuffle_labels
                else _batches(world, range(HELD_OUT))
            )
            precisions = precision(network, progress.track(batches, len(batches)), world.labels)
        card = model_card(precisions, name, seed, steps, shuffle_labels=shuffle_labels)
        tensors = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        write_folder(output, {f"{name}.safetensors": save(tensors), f"{name}.md": card.encode()}, stale=["checkpoint.pt"])
    except RelumeError as error:
        err.print(Text.assemble(("relume: ", "bold red"), str(error)))
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        err.print("stopped; run the same command to go on")
        raise typer.Exit(130) from None
    out.print(card, markup=False)
    out.print(f"→ {output}")


def _plant(output: Path, name: str, seed: int, *, alone: bool) -> None:
    """Write a network with a shortcut, and scenes in which it shows."""
    if name != "scenes" or not alone:
        raise InputError("--shortcut is about the network of scenes, and goes with --seed and --output only")
    with _reporting(FINE_TUNING) as report:
        write_folder(output, shortcut_files(seed, report))
    out.print((output / "shortcut.md").read_text(), markup=False)
    out.print(f"→ relume run {output / 'scenes'} --model demo --weights {output / 'scenes.safetensors'}")


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(main)
    app()
