"""Kinds of sources of pictures: how each recognises a spec, and the function that opens it."""

from __future__ import annotations

import glob
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from relume.datasets.source import Source
from relume.datasets.storage import is_url, storage_of
from relume.errors import InputError
from relume.registry import Registry

__all__ = ["DATASETS", "SourceKind", "open_source"]

_HERE = "relume.datasets"


@dataclass(frozen=True, slots=True)
class SourceKind:
    """A kind of sources of pictures; its key in :data:`DATASETS` and a colon may stand before any spec of it.

    Attributes:
        spec: how a spec is written, for help and errors.
        about: what it holds, in a few words.
        opener: a function from a spec, without the key and its colon, to a :class:`Source`; or its name,
            ``package.module:function``, imported when first needed.
        recognises: tells whether a spec without a key is of this kind; if None, the key has to stand before it.

    Example:
        >>> from relume.datasets import DATASETS, SourceKind, of_dataset, open_source
        >>> from relume.demo import draw_scene
        >>> def open_scenes(spec):
        ...     return of_dataset([draw_scene(seed).picture for seed in range(int(spec))], f"scenes:{spec}")
        >>> DATASETS["scenes"] = SourceKind("scenes:NUMBER", "drawn scenes", open_scenes)
        >>> open_source("scenes:2").manifest()["id"].to_pylist()
        ['0', '1']
        >>> del DATASETS["scenes"]
    """

    spec: str
    about: str
    opener: Callable[[str], Source] | str
    recognises: Callable[[str], bool] | None = None

    def open(self, spec: str) -> Source:
        """Open the source that ``spec`` names.

        Raises:
            InputError: it cannot be opened.
        """
        opener = resolve_name(self.opener) if isinstance(self.opener, str) else self.opener
        source: Source = opener(spec)
        return source


def _is_arrow(spec: str) -> bool:
    """Tell whether ``spec`` is a folder that the library datasets wrote."""
    return any(storage_of(spec).exists(name) for name in ("state.json", "dataset_dict.json"))


def _is_tars(spec: str) -> bool:
    """Tell whether ``spec`` names tars."""
    return spec.lower().endswith((".tar", ".tar.gz", ".tgz"))


def _is_table(spec: str) -> bool:
    """Tell whether ``spec`` names a table."""
    return spec.lower().endswith((".csv", ".parquet"))


def _is_folder(spec: str) -> bool:
    """Tell whether ``spec`` is a folder, or a glob; a URL may be one."""
    return is_url(spec) or Path(spec).is_dir() or glob.has_magic(spec)


#: Every kind of sources by its key; a spec is of the first that recognises it. Other packages add theirs by entry points of
#: ``relume.datasets``.
DATASETS: Registry[SourceKind] = Registry(
    "kind of data sets",
    "relume.datasets",
    {
        "tree": SourceKind("tree:FOLDER", "a folder with a folder for each class", f"{_HERE}.folders:open_tree"),
        "tars": SourceKind("SHARDS.tar", "tars of WebDataset, by {000..127} or a glob", f"{_HERE}.tars:open_tars", _is_tars),
        "table": SourceKind("FILE.csv or FILE.parquet", "a list with a column path", f"{_HERE}.tables:open_table", _is_table),
        "hf": SourceKind("hf:FOLDER", "a data set that save_to_disk of datasets wrote", f"{_HERE}.arrow:open_arrow", _is_arrow),
        "folder": SourceKind("FOLDER or GLOB", "the pictures in a folder", f"{_HERE}.folders:open_folder", _is_folder),
    },
)


def open_source(spec: str | Path | Source | Any) -> Source:
    """Open the source of pictures that ``spec`` names.

    Args:
        spec: a folder or a glob; ``tree:FOLDER``, where a picture's label is the name of the folder it is in; a CSV or Parquet
            file with a column ``path``; tars of WebDataset, such as ``shards/{000..127}.tar``; a folder that the library
            datasets wrote; any other of :data:`DATASETS`. Each may be a URL that fsspec opens: ``s3://bucket/photos``,
            ``tree:s3://bucket/photos``. Or a data set in Python, as :func:`of_dataset` takes it. A source stays as it is.

    Raises:
        InputError: ``spec`` is none of these.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from relume.datasets import open_source
        >>> for name in ("cat/10", "cat/9", "dog/1"):
        ...     Path("pets", name).parent.mkdir(parents=True, exist_ok=True)
        ...     Image.new("RGB", (40, 30)).save(f"pets/{name}.png")
        >>> source = open_source("tree:pets")
        >>> table = source.manifest()
        >>> table.select(["id", "label"]).to_pylist()[1]
        {'id': 'cat/10.png', 'label': 'cat'}
        >>> source.read(table.to_pylist()[1]).picture.size
        (40, 30)
    """
    if isinstance(spec, Source):
        return spec
    if not isinstance(spec, str | Path):
        from relume.datasets.python import of_dataset

        return of_dataset(spec)
    spec = str(spec).removeprefix("file://")
    prefix, colon, rest = spec.partition(":")
    if colon and prefix in DATASETS.names() and not rest.startswith("//"):
        return DATASETS[prefix].open(rest)
    for kind in DATASETS.values():
        if kind.recognises is not None and kind.recognises(spec):
            return kind.open(spec)
    written = ", ".join(kind.spec for kind in DATASETS.values())
    raise InputError(f"there is no source of pictures {spec!r}: it is no folder and no list; write one of {written}")
