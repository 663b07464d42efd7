"""A run in its folder: ``run.json``, ``manifest.parquet``, ``parts/part-NNNNNN.parquet``, each written whole or not at all."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from relume.datasets.columns import FORMAT, explanation_of, maps_of
from relume.datasets.contents import read_picture
from relume.datasets.loading import ahead
from relume.datasets.storage import Storage, is_url, joined, storage_of
from relume.engine.weights import weights_hash
from relume.errors import InputError, ModelError, RelumeError, UnreachableError
from relume.explanation.calibration import Calibration
from relume.models.opened import Opened
from relume.models.photos import natural
from relume.models.sources import open_model
from relume.pages.owner import is_gone
from relume.pictures.preprocessing import Preprocessing
from relume.text import first_line, json_of

if TYPE_CHECKING:
    from relume.datasets.source import Item, Source
    from relume.explanation.result import Explanation
    from relume.pictures.photo import Photo
    from relume.pictures.recording import Recording

__all__ = [
    "MANIFEST",
    "PARQUET",
    "PARTS",
    "Run",
    "clear_unfinished",
    "ids_of",
    "others",
    "parquet",
    "parts",
    "read_record",
    "tidied",
    "write_manifest",
    "write_part",
    "write_record",
]

#: The files of a run.
RECORD, MANIFEST, PARTS = "run.json", "manifest.parquet", "parts"

_PART = re.compile(rf"{PARTS}/part-(\d{{6,}})\.parquet")

#: Rows that are read together where one of them is wanted.
_ROWS = 32

#: How files of rows are written: compressed and with checksums; a dictionary would only make codes larger.
PARQUET: Mapping[str, Any] = {
    "compression": "zstd",
    "row_group_size": _ROWS,
    "use_dictionary": False,
    "write_page_checksum": True,
    "write_statistics": ["id"],
}


# --- Writing -------------------------------------------------------------------------------------------------------------


def write_record(place: str | Path | Storage, record: Mapping[str, Any]) -> None:
    """Write ``run.json``, with its ``format``.

    :class:`Run` reads these keys, and an engine adds its own: ``request`` (:meth:`relume.datasets.request.RunRequest.as_dict`),
    ``provenance`` and ``labels`` (those of the opened network), ``source`` (its spec), ``model`` (its spec; None of a module),
    ``model_options`` (keywords of :func:`relume.open_model`; none if missing) and ``calibration`` (that of the network, as
    :meth:`relume.Calibration.as_dict` gives it; None or missing without one).

    Raises:
        OutputError: it cannot be written.
    """
    storage_of(place).put(RECORD, json_of(record))


def write_manifest(place: str | Path | Storage, manifest: pa.Table) -> None:
    """Write ``manifest.parquet``.

    Raises:
        OutputError: it cannot be written.
    """
    storage_of(place).put(MANIFEST, parquet(manifest))


def write_part(place: str | Path | Storage, number: int, table: pa.Table) -> None:
    """Write one part. It is there for good when this returns, and there is no moment at which half of it has its name.

    Raises:
        OutputError: it cannot be written, as on a full disk; nothing of it is left.

    Example:
        >>> import tempfile
        >>> import pyarrow as pa
        >>> from relume.datasets.store import parts, write_part
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_part(folder, 3, pa.table({"id": ["a", "b"]}))
        ...     parts(folder)
        {3: 'parts/part-000003.parquet'}
    """
    storage_of(place).put(_part(number), parquet(table))


def _part(number: int) -> str:
    """Return the name of a part that holds a fixed range of the manifest."""
    return f"{PARTS}/part-{number:06}.parquet"


def parquet(table: pa.Table) -> memoryview:
    """Return a table as a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **PARQUET)
    return memoryview(sink.getvalue())


def clear_unfinished(place: str | Path | Storage) -> None:
    """Remove the temporary files and locks that killed processes left in a run; those of processes that may live stay."""
    storage = storage_of(place)
    for folder in ("", PARTS):
        for name in storage.names(folder):
            if is_gone(name):
                storage.remove(f"{folder}/{name}".lstrip("/"))


# --- Reading -------------------------------------------------------------------------------------------------------------


def parts(place: str | Path | Storage) -> dict[int, str]:
    """List the numbered parts that are there, in order. One that is cut off or no Parquet counts as missing."""
    return {int(match[1]): name for name in _parts(storage_of(place)) if (match := _PART.fullmatch(name))}


def _parts(storage: Storage) -> dict[str, int]:
    """Count the rows of all files of rows that are whole, in the order of their names."""
    names = _names(storage)
    with ahead(functools.partial(_rows, storage), names, storage.at_once, storage.at_once) as counts:
        return {name: rows for name, rows in zip(names, counts, strict=True) if rows is not None}


def _names(storage: Storage) -> list[str]:
    """List all files of rows, whole or not."""
    names = sorted(storage.names(PARTS), key=natural)
    return [f"{PARTS}/{name}" for name in names if name.endswith(".parquet") and name[0] not in "._"]


def others(place: str | Path | Storage) -> list[str]:
    """List the files of rows, whole or not, that have no number, since an engine named them as it liked."""
    return [name for name in _names(storage_of(place)) if not _PART.fullmatch(name)]


def _rows(storage: Storage, part: str) -> int | None:
    """Count the rows of a part by its footer, which is written last; None if it has none."""
    try:
        with storage.open(part) as file:
            return int(pq.read_metadata(file).num_rows)
    except (OSError, pa.ArrowException, UnicodeDecodeError):
        return None


def ids_of(place: str | Path | Storage, part: str) -> list[str] | None:
    """Read the ids of the rows of a part; None if they cannot be read."""
    try:
        with storage_of(place).open(part) as file:
            ids: list[str] = pq.read_table(file, columns=["id"], page_checksum_verification=True)["id"].to_pylist()
            return ids
    except (OSError, pa.ArrowException):
        return None


def tidied(place: str | Path | Storage, names: Iterable[str] | None = None) -> list[str]:
    """Remove parts that cannot be read, and rows of items that an earlier part has; return the ids of the rows that are left.

    Args:
        place: the place of the run.
        names: the parts; all of them if None.

    Example:
        >>> import pyarrow as pa
        >>> from relume.datasets.store import tidied, write_part
        >>> write_part("memory://doubles", 0, pa.table({"id": ["a", "b"]}))
        >>> write_part("memory://doubles", 1, pa.table({"id": ["b", "c"]}))
        >>> tidied("memory://doubles"), tidied("memory://doubles", ["parts/part-000001.parquet"])
        (['a', 'b', 'c'], ['c'])
    """
    storage, seen = storage_of(place), dict[str, None]()
    names = _names(storage) if names is None else [*names]
    with ahead(functools.partial(ids_of, storage), names, storage.at_once, storage.at_once) as ids_of_parts:
        for name, ids in zip(names, ids_of_parts, strict=True):
            new = dict.fromkeys(key for key in ids or () if key not in seen)
            if not new:
                storage.remove(name)
            elif len(new) < len(ids or ()):
                rows = _read(storage, name)
                storage.put(name, parquet(rows.take(pc.index_in(pa.array(new), rows["id"].combine_chunks()))))
            seen |= new
    return [*seen]


def read_record(place: str | Path | Storage) -> dict[str, Any] | None:
    """Read ``run.json``; None if there is none.

    Raises:
        InputError: it is damaged, or of another format.
    """
    storage = storage_of(place)
    path = joined(str(storage), RECORD)
    try:
        record = json.loads(storage.read(RECORD))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnreachableError:
        raise
    except (OSError, ValueError) as error:
        raise InputError(f"{path!r} cannot be read: {first_line(error)}; put it back, or begin a new run") from None
    version = record.get("format") if isinstance(record, dict) else None
    if version != FORMAT:
        raise InputError(
            f"{path!r} is of format {version!r}, and this version of relume reads {FORMAT}; "
            "use the version that wrote it, or begin a new run in another folder"
        )
    return dict(record)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A run in its folder, finished or not: its rows, and the explanation of each item.

    The files in ``parts`` are plain Parquet, which other tools read without relume. If an item has rows in several parts, the
    first one counts.

    Attributes:
        folder: where it is: a path, or the URL of a place that fsspec opens.
        record: what ``run.json`` says: model, source, request, versions.

    Example:
        >>> import tempfile
        >>> import relume
        >>> from relume.datasets.request import RunRequest
        >>> from relume.datasets.rows import explained_rows
        >>> from relume.datasets.store import Run, write_part, write_record
        >>> demo, request = relume.open_model("demo", "cpu"), RunRequest(methods=["gradcam"])
        >>> photo = relume.pictures.Photo.whole(relume.demo.draw_scene(7, ["cat", "dog"]).picture)
        >>> rows = explained_rows(demo, [({"id": "7", "target": "cat"}, photo)], request)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record = {"model": "demo", "request": request.as_dict(), "provenance": demo.provenance, "labels": demo.labels}
        ...     write_record(folder, record)
        ...     write_part(folder, 0, rows)
        ...     run = Run.load(folder)
        ...     len(run), run.table(["id", "class_name"]).to_pylist(), run.explanation("7")["gradcam"].shape
        (1, [{'id': '7', 'class_name': 'cat'}], torch.Size([1, 16, 16]))
    """

    folder: str | Path
    record: Mapping[str, Any]

    @classmethod
    def load(cls, folder: str | Path) -> Run:
        """Load a run from its folder, or from a URL such as ``s3://bucket/run``.

        Raises:
            InputError: there is none, or it is damaged or of another version.
        """
        record = read_record(folder)
        if record is None:
            raise InputError(f"there is no run in {str(folder)!r}, for it has no {RECORD}; check the path")
        return cls(str(folder) if is_url(str(folder)) else Path(joined("", str(folder))), record)

    @property
    def _storage(self) -> Storage:
        return storage_of(self.folder)

    @property
    def _calibration(self) -> Calibration | None:
        """The calibration that the verdicts of the rows rest on."""
        kept = self.record.get("calibration")
        return None if kept is None else Calibration.read(kept)

    def __len__(self) -> int:
        """Count the items that have a row."""
        there = _parts(self._storage)
        return sum(there.values()) if _are_apart(there) else len(self._table(there, ["id"]))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield each row as plain values by column; a few are in memory at a time."""
        return self.rows()

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Yield each row, as iteration does, but read some columns only.

        Args:
            columns: their names, ``id`` among them; all if None.

        Raises:
            InputError: there is no such column, or a part is damaged.
        """
        storage, seen = self._storage, set[str]()
        there = _parts(storage)
        are_apart, columns = _are_apart(there), self._columns(there, columns)
        for part in there:
            try:
                with storage.open(part) as opened, pq.ParquetFile(opened, page_checksum_verification=True) as file:
                    for batch in file.iter_batches(_ROWS, columns=columns):
                        for row in batch.to_pylist():
                            if are_apart or row["id"] not in seen:
                                yield row
                                seen.add(row["id"])
            except (OSError, pa.ArrowException) as error:
                raise _damaged(storage, part, error) from error

    @property
    def manifest(self) -> pa.Table:
        """All items of the run, with a row or without one yet.

        Raises:
            InputError: it is missing or damaged.
        """
        return _read(self._storage, MANIFEST)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows, in the manifest's order, as a table in memory: name the columns that you need.

        Raises:
            InputError: there is no such column, no row yet, or a part is damaged.
        """
        there = _parts(self._storage)
        if not there:
            raise InputError(f"the run in {str(self.folder)!r} has no rows yet; go on with it")
        return self._table(there, self._columns(there, columns))

    def _columns(self, there: Mapping[str, int], columns: Sequence[str] | None) -> list[str]:
        """Return the names of the columns that are asked for, all if None, as the first of the parts has them.

        Raises:
            InputError: there is no such column.
        """
        if isinstance(columns, str):
            raise InputError(f"columns are a list of names, such as ['id']; got {columns!r}")
        if not there:
            return [*(columns or ())]
        with self._storage.open(next(iter(there))) as file:
            names: list[str] = pq.read_schema(file).names
        if unknown := [name for name in columns or () if name not in names]:
            raise InputError(f"a run has no column {unknown[0]!r}; choose from {', '.join(names)}")
        return names if columns is None else [*columns]

    def _table(self, there: Mapping[str, int], columns: Sequence[str]) -> pa.Table:
        """Return the rows of parts in the manifest's order, one for each item."""
        storage = self._storage
        read = functools.partial(_read, storage, columns=[*dict.fromkeys(["id", *columns])])
        with ahead(read, there, storage.at_once, storage.at_once) as tables:
            rows = pa.concat_tables(tables)
        if _are_apart(there):
            return rows.select(columns)
        return rows.take(pc.index_in(self.manifest["id"], rows["id"].combine_chunks()).drop_null()).select(columns)

    def explanation(self, id: str) -> Explanation:  # noqa: A002 - the name of the column
        """Return the explanation of one item: the maps that are kept, on the photo where it can still be read.

        A saliency is a map of one channel. Scores beyond the first five classes are not kept. If the run keeps facts alone, the
        item is explained anew.

        Raises:
            InputError: there is no such item, it has no row yet, it could not be explained, or its maps are not kept and it
                cannot be explained anew.
        """
        row, schema = self._row(str(id))  # those of a data set in Python are numbers
        if row["error"] is not None:
            raise InputError(f"{id!r} could not be explained: {row['error']}")
        if self.record["request"]["store"] == "facts":
            return self._anew(row)
        provenance, loaded = dict(self.record["provenance"]), None
        try:
            loaded = self._input(row)
        except Exception as error:  # noqa: BLE001 - the maps are there all the same
            provenance["input"] = f"not kept, and it cannot be read again: {first_line(error)}"
        known = {"model": provenance["model"], "labels": self.record["labels"], "provenance": provenance}
        return explanation_of(row, maps_of(schema), known, loaded, self._calibration)

    def report(
        self,
        against: Run | str | Path | None = None,
        *,
        output: str | Path | None = None,
        model: Opened | None = None,
        source: Source | None = None,
        shortcuts: bool = True,
    ) -> str | Path:
        """Write what the run says as a whole: a page, a table of the classes, and the repeated patches that the network uses.

        Args:
            against: another run of the same pictures, such as that of the network before it was trained again. What changed
                from it is the first part of the page.
            output: the folder for ``index.html``, ``summary.csv`` and ``suspects.parquet``, or its URL; ``report`` in that of
                the run if None.
            model: the network of the run, if it was given in Python; if None, it is opened again as the run says.
            source: the source of the run, likewise.
            shortcuts: False to leave out the search for repeated patches, which needs the network and runs it.

        Returns:
            The page, one file that needs no internet.

        Raises:
            InputError: there is no row yet, a part is damaged, or the other run differs by more than its weights.
            OutputError: the folder cannot be written to.

        Example:
            >>> import tempfile
            >>> import relume
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     for seed in range(3):
            ...         relume.demo.draw_scene(seed, ["cat"]).picture.save(f"{folder}/{seed}.png")
            ...     run = relume.run("demo", folder, f"{folder}/run", methods=["gradcam"])
            ...     run.report(shortcuts=False).relative_to(folder).as_posix()
            'run/report/index.html'
        """
        from relume.datasets.report.report import RunReport

        place = joined(str(self.folder), "report") if output is None else output
        storage_of(place).check()
        other = Run.load(against) if isinstance(against, str | Path) else against
        return RunReport.of(self, other, opened=model, source=source, shortcuts=shortcuts).save(place)

    def _row(self, id: str) -> tuple[dict[str, Any], pa.Schema]:  # noqa: A002
        """Find the row of an item, first in the part that holds its range of the manifest."""
        storage = self._storage
        size = self.record.get("configuration", {}).get("part_size")
        likely = "" if size is None else _part(pc.index(_read(storage, MANIFEST, columns=["id"])["id"], id).as_py() // size)
        for part in sorted(_names(storage), key=lambda name: name != likely):
            if _rows(storage, part) is not None and len(rows := _read(storage, part, filters=pc.field("id") == id)):
                return rows.to_pylist()[0], rows.schema
        raise InputError(
            f"there is no row {id!r} in {str(self.folder)!r}; ids are in its column 'id', and it may not be done yet"
        )

    def _photo(self, row: Mapping[str, Any]) -> Path | Photo | Recording:
        """Read the picture of a row again."""
        if row["path"] is not None:
            return read_picture(row["path"]) if is_url(row["path"]) else Path(row["path"])
        return self._source().read(self._item(row))

    def _source(self) -> Source:
        """Open the source again.

        Raises:
            InputError: it cannot be opened.
        """
        from relume.datasets.sources import open_source

        spec = self.record["source"]
        try:
            return open_source(spec)
        except InputError as error:
            if "://" in spec:
                raise
            raise InputError(
                f"its source {spec!r} cannot be opened again: it was given in Python, has gone, or is a path in another folder"
            ) from error

    def _item(self, row: Mapping[str, Any]) -> Item:
        item: Item = self.manifest.filter(pc.field("id") == row["id"]).to_pylist()[0]
        return item

    def _input(self, row: Mapping[str, Any]) -> tuple[Photo | Recording, torch.Tensor]:
        """Make the network's input of a row again, without the network."""
        known = self.record["provenance"]
        photos, recordings = (Preprocessing.of(known[name]) for name in ("preprocessing", "recordings"))
        bare = Opened(known["model"], torch.nn.Identity(), photos, recordings=recordings)
        return bare.input_of(self._photo(row))

    def _opened(self, model: str) -> Opened:
        """Open the network again, as it was for the run.

        Raises:
            ModelError: it cannot be opened, or has other weights.
        """
        opened, known = open_model(model, **self.record.get("model_options") or {}), self.record.get("configuration")
        if known is None:
            return opened
        if weights_hash(opened.model) != known["weights"]:
            raise ModelError(f"{model!r} opens a network of other weights than the run's")
        labels = self.record["labels"]
        changes: dict[str, Any] = {name: Preprocessing.of(known[name]) for name in ("preprocessing", "recordings")}
        changes |= {name: known[name] for name in ("output", "activation")}
        changes |= {"shown": tuple(known["shown"]), "labels": None if labels is None else tuple(labels)}
        return replace(opened, **changes)

    def _anew(self, row: Mapping[str, Any]) -> Explanation:
        """Explain the item of a row as the run did."""
        request, model = self.record["request"], self.record["model"]
        options = request["options"] | {"calibration": self._calibration}
        reason = None
        if model is None:
            reason = "its network was given in Python"
        elif any(isinstance(value, dict) for value in (request["target"], *request["methods"], *options.values())):
            reason = "it was asked with objects of Python"
        else:
            try:
                opened = self._opened(model)
                target = self._item(row)["target"] or request["target"]
                return opened.explain(self._photo(row), target, request["methods"], request["layer"], **options)
            except RelumeError as error:
                reason = first_line(error)
        raise InputError(
            f"this run keeps no maps, and {row['id']!r} cannot be explained anew: {reason}; run it with store='saliency'"
        )


def _are_apart(parts: Iterable[str]) -> bool:
    """Tell whether each item is in one part alone, and in its place: in parts of fixed ranges of the manifest."""
    return all(map(_PART.fullmatch, parts))


def _read(storage: Storage, name: str, **options: Any) -> pa.Table:
    """Read a Parquet file."""
    try:
        with storage.open(name) as file:
            return pq.read_table(file, page_checksum_verification=True, **options)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(storage, name, error) from error


def _damaged(storage: Storage, name: str, error: Exception) -> InputError:
    place = joined(str(storage), name)
    return InputError(f"{place!r} is missing or damaged: {first_line(error)}; remove it, and run the same again")
