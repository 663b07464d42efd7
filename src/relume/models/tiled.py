"""Pictures far larger than a network's input, explained tile by tile, and the maps stitched in files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from relume.engine.inputs import pick
from relume.errors import ImageError
from relume.explanation.saving import address, target_folder
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
from relume.text import encoded

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
        folder: the folder that gets one for each target, with ``METHOD.tif`` (``.npy`` if the picture is no GeoTIFF), the raw
            map, NaN where nothing was recorded; ``METHOD.png``, its magnitudes over the picture, at one scale for the whole;
            and ``tiles.json``.
        targets: what to explain in every tile. None is one class for the whole: that of the highest mean score of all tiles.
        methods: as for :func:`relume.explain`, as are ``layer`` and the options.
        layer: Grad-CAM's target layer.
        tiles: the side of a tile, and the least that neighbours overlap, in pixels.
        progress: sees the progress.
        options: ``batch_size`` is the number of tiles that run at once.

    Returns:
        The folder of each target.

    Raises:
        ImageError: the picture cannot be read or used.
        OutputError: the maps cannot be written; nothing was left behind.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import relume
        >>> from relume.demo import draw_scene
        >>> from relume.models.tiled import explain_tiled
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     draw_scene(0, ["cat"]).picture.resize((200, 150)).save(Path(folder, "large.png"))
        ...     maps = explain_tiled(
        ...         relume.open_model("demo"), Path(folder, "large.png"), folder, ["cat"], ["gradcam"], tiles=(96, 16)
        ...     )
        ...     maps[0].name, sorted(path.name for path in maps[0].iterdir())
        ('4-cat', ['gradcam.npy', 'gradcam.png', 'tiles.json'])
    """
    check_tiles(*tiles)
    batch_size = options.pop("batch_size", None) or BATCH_SIZE
    opened = _uncut(opened)
    with windowed(path) as picture:
        down, across = (pieces(side, *tiles) for side in picture.size)
        rows: list[Row] = [(row, [across[i : i + batch_size] for i in range(0, len(across), batch_size)]) for row in down]
        asked = [_predicted(opened, picture, rows) if target is None else target for target in targets]
        with filled(Path(folder)) as aside:
            with ExitStack() as files:
                stitched: list[_Stitched] = []
                for row, batches in progress(rows):
                    for columns in batches:
                        results, those = _explained(opened, picture, row, columns, asked, methods, layer, options)
                        stitched = stitched or [_Stitched(e, aside, picture, files, row, down) for e in results]
                        layer = layer or _layer(results)
                        for one, e in zip(stitched, results, strict=bool(results)):
                            one.add(e, row, those)
                    for one in stitched:
                        one.flush(row, down)
            if not stitched:
                raise ImageError(f"nothing was recorded anywhere in {str(path)!r}; there is nothing to explain")
            ground = picture.overview(OVERVIEW)
            for one in stitched:
                one.write(ground, {"size": tiles[0], "overlap": tiles[1], "count": len(down) * len(across)}, opened, path)
    return [Path(folder) / target_folder(one.first) for one in stitched]


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
                with torch.no_grad():
                    outputs = opened.model(torch.stack(images).to(opened.device))
                scores = class_scores(pick(outputs, opened.output), len(images))
                total, count = total + scores.double().sum(0).cpu(), count + len(images)
    return int(total.argmax()) if count else 0


def _explained(
    opened: Opened,
    picture: Windowed,
    row: Piece,
    columns: Sequence[Piece],
    targets: Sequence[str | TargetLike],
    methods: Iterable[MethodLike],
    layer: LayerLike | Sequence[LayerLike] | None,
    options: Options,
) -> tuple[Sequence[Explanation], list[Piece]]:
    """Explain tiles that lie side by side, and return the columns of those in which something was recorded."""
    tiles = _tiles(picture, row, columns)
    if not tiles:
        return [], []
    wanted: Options = {**options, "evidence": None}
    return opened.compare([tile for tile, _ in tiles], targets, methods, layer, **wanted), [column for _, column in tiles]


def _layer(explanations: Sequence[Explanation]) -> list[str] | None:
    """Return the layers that were read, so that all tiles read the same."""
    return explanations[0].layer.split(", ") if explanations and explanations[0].layer else None


class _Stitched:
    """The maps of one target, stitched on their way into files; ``first`` is the explanation of the first tiles."""

    def __init__(
        self, first: Explanation, folder: Path, picture: Windowed, files: ExitStack, row: Piece, rows: Sequence[Piece]
    ) -> None:
        self.first, self._folder = first[:1], folder / target_folder(first)
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

    def write(self, ground: Photo | Recording, tiles: Mapping[str, int], opened: Opened, path: str | Path) -> None:
        """Draw each map over the picture, at one scale for the whole, and write what the maps are of."""
        photo = ground if isinstance(ground, Photo) else bands_photo(ground)
        scales = {key: scale_of(drawn) for key, drawn in self._drawn.items()}
        for key, drawn in self._drawn.items():
            (self._folder / f"{key}.png").write_bytes(png(KINDS["over"].draw(drawn, scales[key], photo)))
        e, index = self.first, None if self.first.target is None else int(self.first.target[0])
        facts = {
            "target": index,
            "target_name": e.description[0] if e.description else None if index is None else e.name(index),
            "layer": e.layer,
            "coverage": e.reached,
            "tiles": dict(tiles),
            "maps": {key: {"title": e.infos[key].title, "scale": scale} for key, scale in scales.items()},
            "provenance": {**opened.provenance, "file": str(path), "path": address(Path(path))},
        }
        (self._folder / RECORD).write_bytes(encoded(json.dumps(facts, indent=2, ensure_ascii=False, default=str) + "\n"))
