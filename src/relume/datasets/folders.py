"""Folders of pictures, globs, and folders with a folder for each class."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from relume.datasets.contents import is_picture, read_picture
from relume.datasets.manifest import manifest_of
from relume.datasets.source import Item, Source
from relume.datasets.storage import absolute, files_in, is_url, joined, split_glob
from relume.errors import InputError
from relume.models.photos import natural, pictures_in
from relume.pictures import format_of
from relume.pictures.photo import Photo
from relume.pictures.recording import Recording

__all__ = ["Folder", "open_folder", "open_tree"]


@dataclass(frozen=True)
class Folder(Source):
    """The pictures in a folder and in the folders inside, or what a glob matches, in natural order.

    Attributes:
        spec: the folder or glob, as it was written.
        base: the folder that ids begin in, or its URL: the folder itself, or the part of a glob that has no wildcard.
        pattern: the rest of the glob; empty for a folder.
        labelled: True if the label of a picture is the name of the folder in ``base`` that it lies in.
    """

    spec: str
    base: str
    pattern: str = ""
    labelled: bool = False

    def manifest(self) -> pa.Table:
        """List the pictures by their paths in the folder.

        Raises:
            InputError: there is none, or none with a label.
        """
        table = manifest_of(self._rows(), empty=f"{self.spec!r} holds no pictures that Pillow reads, and no recordings")
        if self.labelled and table["label"].null_count == len(table):
            raise InputError(f"no folder in {self.base!r} holds pictures, so none has a label; leave out tree:")
        return table

    def _rows(self) -> Iterator[Item]:
        for name in self._names():
            label, slash, _ = name.partition("/")
            yield {"id": name, "path": joined(self.base, name), "label": label if self.labelled and slash else None}

    def _names(self) -> Iterator[str]:
        """Yield the paths of the pictures in the folder."""
        if not is_url(self.base):
            yield from (path.relative_to(self.base).as_posix() for path in self._paths(Path(self.base)))
            return
        for name in files_in(self.base, self.pattern):
            if (self.pattern or is_picture(name)) and not any(part.startswith(".") for part in name.split("/")):
                yield name

    def _paths(self, base: Path) -> Iterator[Path]:
        """Yield the pictures in a folder of this machine."""
        if not self.pattern:
            if not base.is_dir():
                raise InputError(f"there is no folder {self.base!r}; check the path")
            yield from pictures_in(base)
            return
        paths: set[Path] = set()  # ** matches folders, and what is in them
        # unlike Path.glob, glob leaves hidden files out
        for name in sorted(glob.iglob(self.pattern, root_dir=base, recursive=True), key=natural):  # noqa: PTH207
            path = base / name
            for picture in pictures_in(path) if path.is_dir() and not format_of(path) else [path]:
                if picture not in paths:
                    paths.add(picture)
                    yield picture

    def read(self, item: Item) -> Photo | Recording:
        """Read a picture by its path or URL."""
        return read_picture(item["path"])


def open_folder(spec: str) -> Source:
    """Open a folder, or a glob where there is no such folder."""
    if is_url(spec):
        return Folder(spec, *split_glob(spec))
    path = Path(absolute(spec))
    if path.is_dir() or not glob.has_magic(spec):
        return Folder(spec, str(path))
    fixed = next(i for i, part in enumerate(path.parts) if glob.has_magic(part))
    return Folder(spec, str(Path(*path.parts[:fixed])), str(Path(*path.parts[fixed:])))


def open_tree(spec: str) -> Source:
    """Open a folder with a folder for each class."""
    return Folder(f"tree:{spec}", absolute(spec), labelled=True)
