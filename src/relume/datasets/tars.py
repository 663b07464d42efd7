"""Tars of WebDataset: files of the same name before the first dot, one after the other, are one item."""

from __future__ import annotations

import glob
import itertools
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from relume.datasets.contents import is_picture, place_in, read_content
from relume.datasets.manifest import manifest_of
from relume.datasets.source import Item, Source
from relume.datasets.storage import absolute, files_in, is_url, joined, split_glob, storage_of
from relume.errors import ImageError, InputError
from relume.models.photos import natural
from relume.pictures.photo import Photo
from relume.pictures.recording import Recording
from relume.text import first_line

__all__ = ["Tars", "open_tars"]

#: The columns by which a picture is found again: its tar, its file there, and where in the tar that begins, and its length.
_COLUMNS = [pa.field("shard", pa.string()), pa.field("member", pa.string())]
_COLUMNS += [pa.field("offset", pa.int64()), pa.field("size", pa.int64())]

#: The endings of files that hold a mask, and a label, and the keys of the label in JSON.
_MASKS = (".seg.png", ".mask.png")
_LABELS, _KEYS = (".cls", ".json", ".txt"), ("label", "cls", "class")

_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")


@dataclass(frozen=True)
class Tars(Source):
    """The pictures in tars of WebDataset, in the order of the tars and of the files in them.

    Attributes:
        spec: the tars, as they were written.
        shards: their paths or URLs.
    """

    spec: str
    shards: tuple[str, ...]

    def manifest(self) -> pa.Table:
        """List the pictures by their keys, with the places of their bytes.

        A file ``.seg.png`` or ``.mask.png`` is the mask. The label is the text of a file ``.cls``, that of ``label``, ``cls``
        or ``class`` in a ``.json``, or the text of a ``.txt``: the first that there is.

        Raises:
            InputError: a tar is missing, compressed, damaged or cut short; there is no picture; or a key comes twice.
        """
        rows = itertools.chain.from_iterable(map(_rows, self.shards))
        return manifest_of(rows, _COLUMNS, empty=f"{self.spec!r} holds no pictures that Pillow reads, and no recordings")

    def read(self, item: Item) -> Photo | Recording:
        """Read a picture from its place in a tar.

        Raises:
            ImageError: it cannot be read or used.
        """
        name = f"{item['shard']}/{item['member']}"
        try:
            content = storage_of(item["shard"]).read("", item["offset"], item["size"])
        except OSError as error:
            raise ImageError(f"{name!r} cannot be read: {error.strerror or first_line(error)}; check the tar") from error
        if len(content) < item["size"]:
            raise ImageError(f"{name!r} is cut short: the tar has changed since it was listed; begin a new run")
        return read_content(name, content)


def _rows(shard: str) -> Iterator[Item]:
    """Yield the items of a tar that have a picture.

    Raises:
        InputError: it is missing, compressed, damaged or cut short.
    """
    try:
        with storage_of(shard).open() as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for key, members in itertools.groupby(_files(tar), lambda member: _split(member.name)[0]):
                endings = {_split(member.name)[1].lower(): member for member in members}
                # an ending of one part comes first: .jpg stands before .0.jpg
                pictures = sorted((ending for ending in endings if is_picture(ending) and ending not in _MASKS), key=_parts)
                if pictures:
                    member, mask = endings[pictures[0]], next(filter(None, map(endings.get, _MASKS)), None)
                    place = {"shard": shard, "member": member.name, "offset": member.offset_data, "size": member.size}
                    if mask is not None:
                        place["mask"] = place_in(shard, mask.name, mask.offset_data, mask.size)
                    yield {"id": key, "label": _label(tar, endings)} | place
    except (OSError, tarfile.TarError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        hint = "unpack it: gunzip" if shard.endswith("gz") else "check the path, or copy it again"
        raise InputError(f"the tar {shard!r} cannot be read: {reason}; {hint}") from error


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the files of a tar, and forget each; links, folders and hidden files are left out.

    Raises:
        ReadError: the tar does not end as one does; where a header is damaged, tarfile would stop without a word.
    """
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]
        if member.isreg() and not Path(member.name).name.startswith("."):
            yield member
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"it is damaged or cut short at byte {tar.offset}")


def _split(name: str) -> tuple[str, str]:
    """Split the name of a file at the first dot behind its folder: a key, and an ending with its dot."""
    folder, slash, file = name.rpartition("/")
    key, dot, ending = file.partition(".")
    return f"{folder}{slash}{key}", dot + ending


def _parts(ending: str) -> int:
    """Count the parts of an ending."""
    return ending.count(".")


def _label(tar: tarfile.TarFile, endings: dict[str, tarfile.TarInfo]) -> str | None:
    """Return the label that a file of an item holds; None without one."""
    ending = next((ending for ending in _LABELS if ending in endings), None)
    if ending is None:
        return None
    file = tar.extractfile(endings[ending])
    text = file.read().decode("utf-8", "replace").strip() if file else ""
    return _of_json(text) if ending == ".json" else text or None


def _of_json(text: str) -> str | None:
    """Return the label in a JSON document: its value, or that of the first of its keys that stands for one."""
    try:
        value: Any = json.loads(text)
    except ValueError:
        return None
    if isinstance(value, dict):
        value = next((value[key] for key in _KEYS if key in value), None)
    return str(value) if isinstance(value, str | int) else None


def open_tars(spec: str) -> Source:
    """Open tars: one, those that braces list, or those that a glob matches, in natural order.

    Raises:
        InputError: a glob matches none.
    """
    shards: list[str] = []
    for written in _expanded(spec):
        place = absolute(written)
        if is_url(place):
            base, pattern = split_glob(place)
            matches = [joined(base, name) for name in files_in(base, pattern)] if pattern else [place]
        else:
            matches = sorted(glob.glob(place, recursive=True), key=natural) if glob.has_magic(place) else [place]  # noqa: PTH207
        if not matches:
            raise InputError(f"no tar matches {written!r}; check the path")
        shards += matches
    return Tars(spec, tuple(dict.fromkeys(shards)))


def _expanded(spec: str) -> Iterator[str]:
    """Yield what braces stand for: ``{000..127}`` numbers of as many digits, ``{a,b}`` either."""
    braces = _BRACES.search(spec)
    if braces is None:
        yield spec
        return
    first, last, words = braces.groups()
    middle = words.split(",") if words else [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    for text in middle:
        yield from _expanded(spec[: braces.start()] + text + spec[braces.end() :])
