"""The grid pointing game on a user's own network: which methods point at the right photograph of a mosaic.

Böhle et al. 2021, arXiv:2104.00032; Rao, Böhle & Schiele 2022, arXiv:2205.10435; Arias-Duart et al. 2022, arXiv:2109.15035.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from relume.engine.weights import fingerprint_of
from relume.errors import InputError, LayerError, ModelError, RelumeError
from relume.evaluation.calibration_page import CellView, MapTile, MosaicView, calibration_page
from relume.evaluation.disconnected import KINDS, Disconnected, Kind
from relume.evaluation.mosaics import CONFIDENCE, Mosaic, Progress, Wall, arranged, assembled, enough, pairs, takes_large
from relume.evaluation.unfinished import Unfinished
from relume.explanation.calibration import FILE, Calibration, Scores
from relume.explanation.comparison import Comparison, compare
from relume.explanation.request import Layers
from relume.measures.baselines import BASELINES
from relume.measures.localisation import Map, Truth, cell_bounds, cell_masks, cell_masses
from relume.measures.statistics import Estimate, area_under_curve, estimate, mean_of_defined, widened
from relume.methods.base import METHODS
from relume.methods.names import DEFAULT_METHODS
from relume.methods.wrapper import AnyMethod, MethodLike, Wrapper, resolve_methods, rewinding
from relume.models.photos import as_input
from relume.models.sources import as_opened
from relume.pages.folder import check_writable
from relume.pictures.photo import Photo, as_photo
from relume.text import encoded, first_line, json_of

if TYPE_CHECKING:
    from relume.models.opened import Opened
    from relume.pictures.preprocessing import Preprocessing
    from relume.targets.activation import Activation

__all__ = ["Game", "calibrate"]

#: The baselines that stand beside the methods: edges of the mosaic, a uniform map, and a random one.
BESIDE = ("sobel_edges", "uniform", "random")

#: The two methods whose agreement is measured.
AGREEING = ("guided_backprop", "gradcam")

#: How many mosaics a page shows.
SHOWN = 3

#: The names of the disconnected networks.
NAMES: Mapping[Kind, str] = {"dipart": "DiPart", "difull": "DiFull"}

#: The note where no mosaic of Focus could be built.
NO_FOCUS = "Focus is left out: it takes mosaics of 2×2 with two photographs of one class."

#: The measures of one mosaic: for each map, for each measure, a value for each cell.
Row: TypeAlias = Mapping[str, Mapping[str, Sequence[float]]]


def calibrate(  # noqa: PLR0913 - every one is an option of the command too
    model: str | Path | Opened | nn.Module,
    photos: Any,
    *,
    methods: Iterable[MethodLike] = DEFAULT_METHODS,
    layer: Layers = None,
    mosaics: int = 25,
    grid: int = 2,
    confidence: float = CONFIDENCE,
    seed: int = 0,
    preprocessing: Preprocessing | None = None,
    labels: Sequence[str] | None = None,
    activation: Activation = "auto",
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Measure how well methods point at the right thing on your network, in mosaics of your photographs.

    Photographs of different predicted classes are put together as a mosaic. Each class is explained there, and the cell that it
    came from is right. No masks and no labels are needed. The scores are about methods on this network, not about single maps.

    Args:
        model: as for :func:`relume.open_model`, or what it returns; or a module, with its ``preprocessing``.
        photos: a folder, paths, or pictures; ``scenes:NUMBER`` for drawn scenes, which the demo network knows.
        methods: as for :func:`relume.explain`.
        layer: as for :func:`relume.explain`.
        mosaics: how many mosaics, at most: each photograph stands in one cell of one mosaic.
        grid: how many cells a side of a mosaic has.
        confidence: the least probability of a photograph's predicted class.
        seed: seeds which photographs stand together, the random baseline, and the bootstrap.
        preprocessing: how a module wants its pictures.
        labels: the class names by index, as for :func:`relume.explain`.
        activation: as for :func:`relume.explain`: without it a module that ends in plain scores gives no probabilities.
        output: the folder for ``calibration.json`` and a page, ``index.html``. Finished mosaics lie there too, so that the same
            call goes on with a calibration that was stopped.
        progress: called with a word for the work, how many items of it are done, and how many there are.

    Raises:
        InputError: fewer than four mosaics can be built; nothing tells what the network's scores are; the network gives no
            score for each class of the whole picture; or a calibration in ``output`` was begun otherwise.
        OutputError: ``output`` cannot be written to.
        RelumeError: as :func:`relume.explain`.

    Example:
        >>> import relume
        >>> calibration = relume.calibrate("demo", "scenes:16", methods=["gradcam"])
        >>> calibration["gradcam"].heaviest.mean > calibration["sobel_edges"].heaviest.mean
        True
        >>> calibration.few
        True
    """
    _check_numbers(mosaics, grid, confidence, seed)
    opened = as_opened(model, preprocessing, labels=labels, activation=activation)
    if output is not None:
        check_writable(Path(output))
    wall = Wall.of(opened, photos, confidence, progress)
    rng = np.random.default_rng(seed)
    arrangement = arranged(wall.predictions, grid**2, mosaics, rng)
    enough(wall, arrangement, grid**2)
    focused = pairs(wall.predictions, mosaics, rng) if grid == 2 else []
    game = Game.of(wall, methods, layer, grid, seed)
    unfinished = Unfinished.of(output, game.facts([*arrangement, *focused]))
    plays = [(game.play, mosaic) for mosaic in arrangement] + [(game.focus, mosaic) for mosaic in focused]
    rows, rewind = list[Row](), rewinding(game.methods)
    for i, (play, mosaic) in enumerate(plays):
        rewind()  # so that a row is the same whichever were done before
        rows.append(unfinished.row(i, functools.partial(play, mosaic, i)))
        if progress is not None:
            progress("explaining", i + 1, len(plays))
    calibration = game.calibration(rows[: len(arrangement)], rows[len(arrangement) :])
    if output is not None:
        views = [game.view(mosaic, row) for mosaic, row in zip(arrangement[:SHOWN], rows, strict=False)]
        page = calibration_page(calibration, [view for view in views if view is not None])
        unfinished.finish({FILE: json_of(calibration.as_dict(), allow_nan=False), "index.html": encoded(page)})
    return calibration


def _check_numbers(mosaics: int, grid: int, confidence: float, seed: int) -> None:
    if mosaics < 1 or grid < 2 or not 0 <= confidence <= 1 or seed < 0:
        raise InputError(
            "mosaics is from 1 on, grid from 2 on, confidence from 0 to 1, and seed not below 0; got "
            f"{mosaics}, {grid}, {confidence:g} and {seed}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Game:
    """The grid pointing game with one network's photographs, by some methods.

    Attributes:
        wall: the photographs and what the network predicts.
        methods: the methods.
        layer: the layers that they read.
        layer_name: the name of the layer; None if no method reads one.
        grid: how many cells a side of a mosaic has.
        size: height and width of a mosaic, in pixels of the network's input.
        large: True if each cell has the size of the network's own input.
        disconnected: the networks of :mod:`relume.evaluation.disconnected` that this one makes.
        seed: seeds the random baseline and the bootstrap.
        notes: what a reader must know: what was left out and why.

    Example:
        >>> import relume
        >>> from relume.evaluation import Game, Mosaic, Wall
        >>> game = Game.of(Wall.of(relume.open_model("demo", "cpu"), "scenes:4"), ["gradcam"])
        >>> row = game.play(Mosaic(photos=(0, 1, 2, 3), classes=(0, 1, 2, 3)), number=0)
        >>> row["gradcam"]["heaviest"]
        [1.0, 1.0, 1.0, 1.0]
    """

    wall: Wall
    methods: Sequence[AnyMethod]
    layer: Layers
    layer_name: str | None
    grid: int
    size: tuple[int, int]
    large: bool
    disconnected: Mapping[Kind, Disconnected]
    seed: int = 0
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, wall: Wall, methods: Iterable[MethodLike], layer: Layers = None, grid: int = 2, seed: int = 0) -> Game:
        """Find the size of mosaics that the network takes and its layer, and try to disconnect it there.

        Raises:
            RelumeError: as :func:`relume.explain`.
        """
        resolved = resolve_methods(methods)
        image = wall.image(wall.predictions[0].photo)
        large = takes_large(wall.opened, image, grid)
        mosaic = assembled([image] * grid**2, grid, large=large)
        height, width = mosaic.shape[1:]
        notes = [] if large else [f"The network takes {width}×{height} pixels alone, so the cells of a mosaic are smaller."]
        if wall.confidence < CONFIDENCE:
            notes.append(f"Predictions with less than {CONFIDENCE:g} are wrong more often; then no cell shows the class.")
        if wall.failed:
            notes.append(f"{wall.unused}.")
        game = cls(wall, resolved, layer, None, grid, (height, width), large, {}, seed)
        if any(method.needs_layer for method in resolved):
            name = game.explained(mosaic, [0])[0].layer
            game = replace(game, layer=name if layer is None else layer, layer_name=name)
        disconnected: dict[Kind, Disconnected] = {}
        for kind in KINDS:
            try:
                disconnected[kind] = game.cut(kind, mosaic)
            except Exception as error:  # noqa: BLE001 - networks fail in their own ways on being taken apart
                why = first_line(error)
                if not isinstance(error, RelumeError):
                    why = f"the network cannot be taken apart at layer {game.layer_name} ({why})"
                notes.append(f"{NAMES[kind]} is left out: {why}.")
        return replace(game, disconnected=disconnected, notes=tuple(notes))

    def cut(self, kind: Kind, mosaic: Tensor) -> Disconnected:
        """Disconnect the network at its layer, and try to explain it so.

        Raises:
            LayerError: there is no single layer to disconnect it at.
            ModelError: the network takes no mosaic of whole photographs.
        """
        opened = self.wall.opened
        name = self.layer_name or self.explained(mosaic, [0], [METHODS["gradcam"]])[0].layer
        if name is None or ", " in name:
            raise LayerError("it takes the network apart at one layer")
        if kind == "difull" and not self.large:
            raise ModelError("the network takes no mosaic of whole photographs")
        network = Disconnected(opened.model, name, self.grid, kind, opened.output)
        self.explained(mosaic, [0], network=network)
        return network

    def explained(
        self,
        image: Tensor,
        classes: Sequence[int],
        methods: Sequence[AnyMethod] | None = None,
        network: Disconnected | None = None,
    ) -> Comparison:
        """Explain classes of a mosaic; those of a disconnected ``network`` are counted over its heads."""
        opened, methods = self.wall.opened, self.methods if methods is None else methods
        images, layer = image[None].to(opened.device), self.layer
        if network is not None:
            return compare(network, images, classes, methods, network.layer, evidence=None)
        return compare(opened.model, images, classes, methods, layer, evidence=None, output=opened.output)

    def image(self, mosaic: Mosaic) -> Tensor:
        """Return a mosaic as the network's input, ``(C, H, W)``."""
        return assembled([self.wall.image(i) for i in mosaic.photos], self.grid, large=self.large)

    def play(self, mosaic: Mosaic, number: int) -> Row:
        """Explain every cell of a mosaic, and score each map, by the network and by those that it makes disconnected."""
        image, cells = self.image(mosaic), range(self.grid**2)
        explained = self.explained(image, mosaic.classes)
        heats = _heats(explained) | self._beside(image, number)
        masses = {key: [cell_masses(heat, self.grid).ravel() for heat in maps] for key, maps in heats.items()}
        row = {
            key: {
                "mass": [_share(m, [i]) for i, m in zip(cells, of_map, strict=True)],
                "heaviest": [_is_heaviest(m, i) for i, m in zip(cells, of_map, strict=True)],
            }
            for key, of_map in masses.items()
        }
        classes = explained[0].scores.shape[1]
        for kind, network in self.disconnected.items():
            heads = [i * classes + index for i, index in zip(cells, mosaic.classes, strict=True)]
            for key, maps in _heats(self.explained(image, heads, network=network)).items():
                row[key][kind] = [
                    _share(cell_masses(heat, self.grid).ravel(), [i]) for i, heat in zip(cells, maps, strict=True)
                ]
        if all(key in heats for key in AGREEING):
            row[AGREEING[0]]["agreement"] = [_pearson(a, b) for a, b in zip(*(heats[key] for key in AGREEING), strict=True)]
        return row

    def focus(self, mosaic: Mosaic, number: int) -> Row:
        """Explain the class of two cells of a mosaic, and score each map by its share on both."""
        image = self.image(mosaic)
        (index,) = (index for index, count in Counter(mosaic.classes).items() if count == 2)
        right = [i for i, other in enumerate(mosaic.classes) if other == index]
        heats = _heats(self.explained(image, [index])) | self._beside(image, number, 1)
        return {key: {"focus": [_share(cell_masses(maps[0], self.grid).ravel(), right)]} for key, maps in heats.items()}

    def _beside(self, image: Tensor, number: int, count: int | None = None) -> dict[str, list[Map]]:
        """Draw the baselines of a mosaic for each of its cells."""
        rng, pixels = np.random.default_rng([self.seed, number]), image.float().cpu().numpy()
        masks = cell_masks(self.size, self.grid)[:count]
        return {key: [BASELINES[key].draw(pixels, Truth(mask, mask), rng) for mask in masks] for key in BESIDE}

    def facts(self, mosaics: Sequence[Mosaic]) -> dict[str, Any]:
        """Return everything that rows depend on, as plain data."""
        names = {i: self._name(i) for mosaic in mosaics for i in mosaic.photos}
        return {
            "fingerprint": fingerprint_of(self.wall.opened.model),
            "layer": self.layer_name,
            "methods": [repr(method) if isinstance(method, Wrapper) else method.key for method in self.methods],
            "size": list(self.size),
            "grid": self.grid,
            "seed": self.seed,
            "confidence": self.wall.confidence,
            "mosaics": [[names[i] for i in mosaic.photos] for mosaic in mosaics],
        }

    def _name(self, i: int) -> str:
        """Return the path of a photograph, or the hash of what the network sees of a picture that has none."""
        photo = self.wall.photos[i]
        if isinstance(photo, str | Path):
            return str(photo)
        return hashlib.sha256(self.wall.image(i).float().numpy().tobytes()).hexdigest()

    def calibration(self, rows: Sequence[Row], focus: Sequence[Row] = ()) -> Calibration:
        """Estimate every score, with its interval over mosaics."""
        opened, wall = self.wall.opened, self.wall
        infos = [info for method in self.methods for info in method.maps]
        scores = {info.key: self._scores(info.key, info.title, rows, focus, info.note) for info in infos}
        notes = (*self.notes, *(() if focus else (NO_FOCUS,)))
        agreement = [(a, right) for row in rows for a, right in _agreement(row) if not math.isnan(a)]
        values, right = np.array([a for a, _ in agreement]), np.array([right == 1 for _, right in agreement], dtype=bool)
        auc = area_under_curve(values, right) if agreement else math.nan
        return Calibration(
            fingerprint=fingerprint_of(opened.model),
            model=opened.name,
            layer=self.layer_name,
            methods=scores,
            baselines={key: self._scores(key, BASELINES[key].title, rows, focus) for key in BESIDE},
            mosaics=len(rows),
            photos=len(rows) * self.grid**2,
            grid=self.grid,
            size=self.size,
            confidence=wall.confidence,
            usable=len(wall.predictions),
            given=len(wall.photos),
            **({"pictures": "drawn scenes"} if wall.are_scenes else {}),
            agreement=None if math.isnan(auc) else auc,
            notes=notes,
            provenance={
                "seed": self.seed,
                "activation": opened.activation,
                "preprocessing": opened.preprocessing.as_dict(),
                "versions": {"relume": version("relume"), "torch": torch.__version__},
            },
        )

    def _scores(self, key: str, title: str, rows: Sequence[Row], focus: Sequence[Row], note: str = "") -> Scores:
        """Estimate the scores of one map over mosaics."""

        def over(measure: str, played: Sequence[Row]) -> Estimate | None:
            values = [mean_of_defined(row[key][measure]) for row in played if measure in row[key]]
            return estimate(values, self.seed, few=True) if values else None

        mass, heaviest = over("mass", rows), over("heaviest", rows)
        assert mass is not None, "there is a mosaic"
        assert heaviest is not None, "there is a mosaic"
        if key not in BESIDE:
            heaviest = widened(heaviest, len(rows) * self.grid**2)
        empty = sum(math.isnan(value) for row in rows for value in row[key]["mass"])
        return Scores(title, mass, heaviest, over("focus", focus), over("dipart", rows), over("difull", rows), empty, note)

    def view(self, mosaic: Mosaic, row: Row) -> MosaicView | None:
        """Draw a mosaic and its maps for a page; None if its cells are recordings, which are no pictures to paste."""
        wall, labels = self.wall, self.wall.opened.labels
        photos = [as_input(wall.photos[i]) for i in mosaic.photos]
        pictures = [wall.opened.preprocessing.view(photo.picture) for photo in photos if isinstance(photo, Photo)]
        if len(pictures) < len(photos):
            return None
        picture, probability = self._pasted(pictures), {p.photo: p.probability for p in wall.predictions}
        cells = []
        for i, e in enumerate(self.explained(self.image(mosaic), mosaic.classes)):
            drawn, index = replace(e, photos=[as_photo(picture)]), mosaic.classes[i]
            maps = [
                MapTile(e.infos[key].title, drawn.picture(key, kind="over"), row[key]["mass"][i], row[key]["heaviest"][i] == 1)
                for key in e.maps
            ]
            name = labels[index].partition(",")[0] if labels else f"class {index}"
            cells.append(CellView(name, probability[mosaic.photos[i]], i, maps))
        return MosaicView(picture, self.grid, cells)

    def _pasted(self, pictures: Sequence[Image.Image]) -> Image.Image:
        """Paste pictures into the cells of one, row by row."""
        rows, columns = (cell_bounds(side, self.grid) for side in self.size)
        whole = Image.new("RGB", self.size[::-1])
        for i, one in enumerate(pictures):
            down, across = divmod(i, self.grid)
            size = columns[across + 1] - columns[across], rows[down + 1] - rows[down]
            whole.paste(one.convert("RGB").resize(size), (columns[across], rows[down]))
        return whole


def _heats(explained: Comparison) -> dict[str, list[Map]]:
    """Return the saliency of every class of a mosaic, by map."""
    return {key: [e.saliency(key)[0].cpu().double().numpy() for e in explained] for key in explained[0].maps}


def _share(masses: Map, right: Sequence[int]) -> float:
    """Compute ``Σ_right A / Σ A`` of the masses of cells; NaN for an empty map."""
    total = float(masses.sum())
    return float(masses[list(right)].sum()) / total if total else math.nan


def _is_heaviest(masses: Map, right: int) -> float:
    """Return 1 if the right cell has the largest mass, its part if several have, and 0 for an empty map."""
    highest = np.isclose(masses, masses.max(), rtol=1e-9, atol=0)
    return float(highest[right]) / float(highest.sum()) if masses.any() else 0.0


def _pearson(a: Map, b: Map) -> float:
    """Compute the correlation of two maps; NaN where one is constant."""
    return math.nan if np.ptp(a) == 0 or np.ptp(b) == 0 else float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def _agreement(row: Row) -> list[tuple[float, float]]:
    """Return the agreement of each map of guided backpropagation with Grad-CAM, and whether its heaviest cell is right."""
    of_guided = row.get(AGREEING[0], {})
    return [*zip(of_guided["agreement"], of_guided["heaviest"], strict=True)] if "agreement" in of_guided else []
