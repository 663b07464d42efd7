"""Pictures far larger than a network's input, explained tile by tile, and the maps stitched in files."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from relume.engine.reading import Reading
from relume.engine.trace import Trace
from relume.errors import ImageError
from relume.explanation.saving import address, target_folders
from relume.maps import array, upsample
from relume.methods.names import DEFAULT_METHODS
from relume.models.opened import BATCH_SIZE
from relume.pages.folder import filled
from relume.pictures.canvas import png
from relume.pictures.formats.windows import Windowed, Write, windowed
from relume.pictures.ground import bands_photo
from relume.pictures.kinds import KINDS
from relume.pictures.photo import Photo
from relume.pictures.recording import Recording
from relume.pictures.scale import scale_of
from relume.pictures.tiles import Piece, Strip, check_tiles, pieces
from relume.targets.outputs import class_scores
from relume.text import json_of

if TYPE_CHECKING:
    from relume.engine.reading import LayerLike
    from relume.explanation.request import Options
    from relume.explanation.result import Explanation
    from relume.methods.wrapper import MethodLike
    from relume.models.opened import Opened
    from relume.targets import TargetLike

__all__ = ["RECORD", "explain_tiled"]

#: The file of what the maps are of, and how they were made.
RECORD = "tiles.json"

#: The longest side of the pictures drawn, in pixels.
OVERVIEW = 2048

#: A row of tiles that lie side by side, in batches.
Row: TypeAlias = tuple[Piece, Sequence[Sequence[Piece]]]

#: Sees the progress: takes the rows of tiles and gives them one by one.
Progress: TypeAlias = Callable[[Sequence[Row]], Iterable[Row]]


def explain_tiled(
    opened: Opened,
    path: str | Path,
    folder: str | Path,
    targets: Sequence[str | TargetLike] = (None,),
    methods: Iterable[MethodLike] = DEFAULT_METHODS,
    layer: LayerLike | Sequence[LayerLike] | None = None,
    *,
    tiles: tuple[int, int] = (512, 64),
    progress: Progress = iter,  # gives the rows as they are
    **options: Unpack[Options],
) -> list[Path]:
    """Explain a picture tile by tile at its own resolution, and write the stitched maps into folders of ``folder``.

    Neighbouring maps pass linearly into each other where their tiles overlap. Memory is bounded by a row of tiles, however
    tall the picture: a GeoTIFF is read window by window, and maps are written row by row, on its grid.

    Args:
        opened: the network, whose resize and crop have no effect: each tile goes in as it is.
        path: a photo, or a picture of bands.
        folder: gets a folder for each target, with ``METHOD.tif`` (``.npy`` if the picture is no GeoTIFF), the raw map, NaN
            where nothing was recorded; ``METHOD.png``, at one scale for the whole; and ``tiles.json``.
        targets: what to explain in every tile. None is one class for the whole: that of the highest mean score of all tiles.
        methods: as for :func:`relume.explain`, as are ``layer`` and the options; ``batch_size`` counts tiles.
        layer: Grad-CAM's target layer.
        tiles: the side of a tile, and the least that neighbours overlap, in pixels.
        progress: sees the progress.
        options: as for :func:`relume.explain`.

    Returns:
        The folder of each target.

    Raises:
        ImageError: the picture cannot be read or used.
        OutputError: the maps cannot be written; nothing was left behind.

    Example:
        >>> import relume
        >>> from relume.demo import draw_scene
        >>> from relume.models.tiled import explain_tiled
        >>> draw_scene(0, ["cat"]).picture.resize((200, 150)).save("large.png")
        >>> (folder,) = explain_tiled(relume.open_model("demo"), "large.png", "out", ["cat"], ["gradcam"], tiles=(96, 16))
        >>> folder.name, sorted(path.name for path in folder.iterdir())
        ('4-cat', ['gradcam.npy', 'gradcam.png', 'tiles.json'])
    """
    check_tiles(*tiles)
    batch_size = options.pop("batch_size", None) or BATCH_SIZE
    opened = _uncut(opened)
    with windowed(path) as picture:
        down, across = (pieces(side, *tiles) for side in picture.size)
        rows: list[Row] = [(row, [across[i : i + batch_size] for i in range(0, len(across), batch_size)]) for row in down]
        asked = [_predicted(opened, picture, rows) if target is None else target for target in targets]
        ask = _Asked(opened, picture, asked, [*methods], layer, {**options, "evidence": None})
        with filled(Path(folder)) as aside:
            with ExitStack() as files:
                stitched = _stitched(ask, rows, progress, aside, files)
            ground = picture.overview(OVERVIEW)
            for one in stitched:
                one.write(ground, (*tiles, len(down) * len(across)), opened, path)
    return [Path(folder) / one.name for one in stitched]


def _uncut(opened: Opened) -> Opened:
    """Return the network with a preprocessing that leaves the size of a picture as it is."""
    whole = {"resize": None, "crop": None, "letterbox": False, "spacing": None}
    preparations = {name: dataclasses.replace(getattr(opened, name), **whole) for name in ("preprocessing", "recordings")}
    return dataclasses.replace(opened, **preparations)


def _tiles(picture: Windowed, row: Piece, columns: Sequence[Piece]) -> list[tuple[Photo | Recording, Piece]]:
    """Read the tiles of a row in which something was recorded."""
    tiles = [(picture.read(((row.start, row.end), (column.start, column.end))), column) for column in columns]
    return [(tile, column) for tile, column in tiles if isinstance(tile, Photo) or np.isfinite(tile.values).any()]


def _predicted(opened: Opened, picture: Windowed, rows: Sequence[Row]) -> int:
    """Return the class of the highest mean score of all tiles."""
    total, count = torch.zeros(()), 0
    for row, batches in rows:
        for columns in batches:
            images = [opened.input_of(tile)[1] for tile, _ in _tiles(picture, row, columns)]
            if images:
                trace = Trace.run(opened.model, torch.stack(images).to(opened.device), Reading(output=opened.output))
                scores = class_scores(trace.outputs, len(images)).detach()
                total, count = total + scores.double().sum(0).cpu(), count + len(images)
    return int(total.argmax()) if count else 0


@dataclass(slots=True)
class _Asked:
    """The question to each tile; the layer that the first tiles chose is that of all."""

    opened: Opened
    picture: Windowed
    targets: Sequence[str | TargetLike]
    methods: Sequence[MethodLike]
    layer: LayerLike | Sequence[LayerLike] | None
    options: Options

    def explain(self, row: Piece, columns: Sequence[Piece]) -> tuple[Sequence[Explanation], list[Piece]]:
        """Explain tiles that lie side by side, and return the columns of those in which something was recorded."""
        tiles = _tiles(self.picture, row, columns)
        if not tiles:
            return [], []
        results = self.opened.compare([tile for tile, _ in tiles], self.targets, self.methods, self.layer, **self.options)
        self.layer = self.layer or (results[0].layer.split(", ") if results[0].layer else None)
        return results, [column for _, column in tiles]


def _stitched(ask: _Asked, rows: Sequence[Row], progress: Progress, folder: Path, files: ExitStack) -> list[_Stitched]:
    """Explain all tiles, and stitch the maps of each target."""
    stitched: list[_Stitched] = []
    down = [row for row, _ in rows]
    for row, batches in progress(rows):
        for columns in batches:
            results, those = ask.explain(row, columns)
            names = target_folders(results)
            stitched = stitched or [
                _Stitched(e, folder / name, ask.picture, files, row, down) for e, name in zip(results, names, strict=True)
            ]
            for one, e in zip(stitched, results, strict=bool(results)):
                one.add(e, row, those)
        for one in stitched:
            one.flush(row, down)
    if not stitched:
        raise ImageError("nothing was recorded anywhere in the picture; there is nothing to explain")
    return stitched


class _Stitched:
    """The maps of one target, stitched on their way into files; ``first`` is the explanation of the first tiles."""

    def __init__(
        self, first: Explanation, folder: Path, picture: Windowed, files: ExitStack, row: Piece, rows: Sequence[Piece]
    ) -> None:
        self.first, self.name, self._folder = first[:1], folder.name, folder
        self._step = math.ceil(max(picture.size) / OVERVIEW)
        self._folder.mkdir(parents=True)
        self._strips: dict[str, Strip] = {}
        self._write: dict[str, Write] = {}
        self._drawn: dict[str, NDArray[np.float32]] = {}
        for key, info in first.infos.items():
            channels = 1 if info.place == "layer" else first[key].shape[1]
            path = self._folder / f"{key}{picture.suffix}"
            self._strips[key] = Strip(channels, picture.size[1])
            self._write[key] = files.enter_context(picture.written(path, channels))
            self._drawn[key] = np.zeros([math.ceil(side / self._step) for side in picture.size], np.float32)
        for above in rows[: rows.index(row)]:  # in which nothing was recorded
            self.flush(above, rows)

    def add(self, e: Explanation, row: Piece, columns: Sequence[Piece]) -> None:
        """Add the maps of tiles that lie side by side."""
        for key, strip in self._strips.items():
            values = e[key]
            if e.infos[key].place == "layer":
                values = upsample(values, e.images.shape[2:])[:, None]
            for tile, ground, column in zip(array(values.float()), e.photos or (), columns, strict=True):
                there = np.isfinite(ground.values).all(0) if isinstance(ground, Recording) else True
                strip.add(np.where(there, tile, np.nan), row, column)

    def flush(self, row: Piece, rows: Sequence[Piece]) -> None:
        """Write the rows to which no tile adds any more, and keep their highest magnitudes for the picture."""
        following = min((piece.start for piece in rows if piece.start > row.start), default=row.end)
        for key, strip in self._strips.items():
            start, done = strip.start, strip.until(following)
            self._write[key](start, done)
            magnitudes = np.nan_to_num(np.abs(done).max(0))
            reduced = np.maximum.reduceat(magnitudes, np.arange(0, magnitudes.shape[1], self._step), axis=1)
            np.maximum.at(self._drawn[key], (start + np.arange(len(reduced))) // self._step, reduced)

    def write(self, ground: Photo | Recording, tiles: tuple[int, int, int], opened: Opened, path: str | Path) -> None:
        """Draw each map over the picture, at one scale for the whole, and write what the maps are of."""
        shown = ground if isinstance(ground, Photo) else dataclasses.replace(ground, shown=opened.shown or ground.shown)
        photo = shown if isinstance(shown, Photo) else bands_photo(shown)
        scales = {key: scale_of(drawn) for key, drawn in self._drawn.items()}
        for key, drawn in self._drawn.items():
            (self._folder / f"{key}.png").write_bytes(png(KINDS["over"].draw(drawn, scales[key], photo)))
        e, index = self.first, None if self.first.target is None else int(self.first.target[0])
        facts = {
            "target": index,
            "target_name": e.description[0] if e.description else None if index is None else e.name(index),
            "layer": e.layer,
            "coverage": e.reached,
            "tiles": dict(zip(("size", "overlap", "count"), tiles, strict=True)),
            "maps": {key: {"title": e.infos[key].title, "scale": scale} for key, scale in scales.items()},
            "provenance": {**opened.provenance, "file": str(path), "path": address(Path(path))},
        }
        (self._folder / RECORD).write_bytes(json_of(facts))
