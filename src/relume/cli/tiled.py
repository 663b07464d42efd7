"""``relume explain --tiles``: makes stitched maps of pictures far larger than a network's input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from relume.cli import common
from relume.cli.common import out
from relume.errors import InputError
from relume.text import printable

if TYPE_CHECKING:
    from relume.cli.options import Asked
    from relume.cli.photos import Failures
    from relume.explanation.saving import ResultFolders
    from relume.methods.wrapper import MethodLike
    from relume.models.opened import Opened
    from relume.models.tiled import Row
    from relume.targets import TargetLike

__all__ = ["explain_in_tiles", "tiles_of"]


def tiles_of(text: str) -> tuple[int, int]:
    """Read the size of tiles and their overlap, which is an eighth of the size where none is given.

    Raises:
        InputError: these are no such numbers.
    """
    from relume.pictures.tiles import check_tiles

    size, _, overlap = text.partition(",")
    try:
        tiles = int(size), int(overlap) if overlap else int(size) // 8
    except ValueError:
        raise InputError(f"--tiles is SIZE or SIZE,OVERLAP in pixels, such as 512,64; got {text!r}") from None
    check_tiles(*tiles)
    return tiles


def explain_in_tiles(
    opened: Opened,
    photos: Sequence[Path],
    targets: Sequence[TargetLike],
    methods: Sequence[MethodLike],
    layer: str | None,
    tiles: tuple[int, int],
    *,
    asked: Asked,
    folders: ResultFolders,
    failures: Failures,
) -> None:
    """Explain each photo tile by tile, and say where its maps are, or report its failure."""
    from relume.models.tiled import explain_tiled

    for path in photos:
        try:
            folder = folders.of(path)
            written = explain_tiled(
                opened, path, folder, targets, methods, layer, tiles=tiles, progress=_progress, **asked.options
            )
        except Exception as error:  # noqa: BLE001 - each is reported
            failures.add(error, path)
        else:
            failures.done += 1
            for each in written:
                out.print(Text.assemble((printable(path), "bold"), f"  {each.name}  → ", (printable(each), "green")))


def _progress(rows: Sequence[Row]) -> Iterator[Row]:
    """Show how many rows of tiles are done."""
    with common.tracked("explaining rows of tiles", rows, len(rows)) as steps:
        yield from steps
