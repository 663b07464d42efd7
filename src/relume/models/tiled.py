"""Pictures far larger than a network's input, explained tile by tile, and the maps stitched in files."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from relume.engine.inputs import pick
from relume.errors import ImageError
from relume.explanation.saving import address, target_folder
from relume.maps import MapInfo, array, upsample
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
    progress: Progress = iter,
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
        batches = [across[start : start + batch_size] for start in range(0, len(across), batch_size)]
        rows: list[Row] = [(row, batches) for row in down]
        asked = [_predicted(opened, picture, rows) if target is None else target for target in targets]
        with filled(Path(folder)) as aside, ExitStack() as files:
            stitched: list[list[_Map]] = []
            first: list[Explanation] = []
            for row, batch in progress(rows):
                for columns in batch:
                    for explained, those in _explained(opened, picture, row, columns, asked, methods, layer, options):
                        if not stitched:
                            first, layer = explained, layer or (explained[0].layer and explained[0].layer.split(", "))
                            stitched = [_opened_maps(e, aside / target_folder(e), picture, files) for e in explained]
                        for maps, e in zip(stitched, explained, strict=True):
                            for one in maps:
                                one.add(e, row, those)
                for maps in stitched:
                    for one in maps:
                        one.flush(row, down)
            if not stitched:
                raise ImageError(f"nothing was recorded anywhere in {str(path)!r}; there is nothing to explain")
            files.close()
            ground = picture.overview(OVERVIEW)
            for maps, e in zip(stitched, first, strict=True):
                _write_pictures(aside / target_folder(e), maps, ground)
                facts = _facts(opened, path, e, maps, (*tiles, len(down) * len(across)))
                (aside / target_folder(e) / RECORD).write_bytes(encoded(json.dumps(facts, indent=2, ensure_ascii=False)))
    return [Path(folder) / target_folder(e) for e in first]


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
) -> Iterator[tuple[list[Explanation], list[Piece]]]:
    """Explain tiles that lie side by side, in which something was recorded."""
    tiles = _tiles(picture, row, columns)
    if tiles:
        wanted: Options = {**options, "evidence": None}
        yield [*opened.compare([tile for tile, _ in tiles], targets, methods, layer, **wanted)], [c for _, c in tiles]


@dataclass(slots=True, eq=False)
class _Map:
    """A stitched map on its way into a file."""

    info: MapInfo
    strip: Strip
    write: Write
    step: int
    drawn: NDArray[np.float32]

    def add(self, e: Explanation, row: Piece, columns: Sequence[Piece]) -> None:
        """Add the maps of tiles."""
        values = e[self.info.key]
        if self.info.place == "layer":
            values = upsample(values, e.images.shape[2:])[:, None]
        for tile, ground, column in zip(array(values.float()), e.photos or (), columns, strict=True):
            if isinstance(ground, Recording):
                tile = np.where(np.isfinite(ground.values).all(0), tile, np.nan)
            self.strip.add(tile, row, column)

    def flush(self, row: Piece, rows: Sequence[Piece]) -> None:
        """Write the rows to which no tile adds any more, and note their highest magnitudes for the picture."""
        following = [piece.start for piece in rows if piece.start > row.start]
        start = self.strip.start
        done = self.strip.until(min(following, default=row.end))
        self.write(start, done)
        magnitudes = np.nan_to_num(np.abs(done).max(0, initial=0))
        fine = np.maximum.reduceat(magnitudes, np.arange(0, magnitudes.shape[1], self.step), axis=1)
        np.maximum.at(self.drawn, (start + np.arange(len(fine))) // self.step, fine)


def _opened_maps(e: Explanation, folder: Path, picture: Windowed, files: ExitStack) -> list[_Map]:
    """Open a file for each map of a target."""
    folder.mkdir(parents=True)
    height, width = picture.size
    step = math.ceil(max(picture.size) / OVERVIEW)
    maps = []
    for key, info in e.infos.items():
        channels = 1 if info.place == "layer" else e[key].shape[1]
        write = files.enter_context(picture.written(folder / f"{key}{picture.suffix}", channels))
        drawn = np.zeros((math.ceil(height / step), math.ceil(width / step)), np.float32)
        maps.append(_Map(info, Strip(channels, width), write, step, drawn))
    return maps


def _write_pictures(folder: Path, maps: Sequence[_Map], ground: Photo | Recording) -> None:
    """Draw each map over the picture, at one scale for the whole."""
    photo = ground if isinstance(ground, Photo) else bands_photo(ground)
    for one in maps:
        (folder / f"{one.info.key}.png").write_bytes(png(KINDS["over"].draw(one.drawn, scale_of(one.drawn), photo)))


def _facts(opened: Opened, path: str | Path, e: Explanation, maps: Sequence[_Map], tiles: tuple[int, int, int]) -> dict[str, Any]:
    """Return what the maps are of, as plain data for JSON."""
    index = None if e.target is None else int(e.target[0])
    return {
        "target": index,
        "target_name": e.description[0] if e.description else None if index is None else e.name(index),
        "layer": e.layer,
        "tiles": dict(zip(("size", "overlap", "count"), tiles, strict=True)),
        "maps": {one.info.key: {"title": one.info.title, "scale": scale_of(one.drawn)} for one in maps},
        "provenance": {**opened.provenance, "file": str(path), "path": address(Path(path))},
    }
