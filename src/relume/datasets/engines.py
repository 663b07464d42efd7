"""The front of a run, which all engines share: what is asked is checked and written down, and an engine is given the work."""

from __future__ import annotations

import dataclasses
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Unpack, cast

import pyarrow as pa
from PIL import Image
from torch import Tensor, nn

from relume.acceleration.prepared import prepare
from relume.datasets.configuration import check_same, configuration_of, digest_of, versions
from relume.datasets.loading import DEFAULT_LOADERS, ahead
from relume.datasets.lock import locked
from relume.datasets.manifest import hash_of
from relume.datasets.python import Indexed
from relume.datasets.request import RunRequest, Store
from relume.datasets.rows import Batch, Loaded, Results, at_once, explained, rows_of, small
from relume.datasets.source import Item, Source
from relume.datasets.sources import open_source
from relume.datasets.storage import Storage, storage_of
from relume.datasets.store import (
    MANIFEST,
    Run,
    clear_unfinished,
    parts,
    read_record,
    write_manifest,
    write_record,
)
from relume.demo import draw_scene
from relume.engine.preparation import preparation_of
from relume.errors import InputError, UnreachableError
from relume.methods.names import DEFAULT_METHODS
from relume.methods.wrapper import rewinding
from relume.models.labels import class_index
from relume.models.opened import BATCH_SIZE, Opened
from relume.models.sources import as_opened
from relume.registry import Registry

if TYPE_CHECKING:
    from relume.acceleration.prepared import Preparing
    from relume.engine.reading import Rectifiers, Reshape
    from relume.explanation.calibration import Calibration
    from relume.explanation.request import Layers, Options
    from relume.methods.gradients import Fuse
    from relume.methods.wrapper import MethodLike
    from relume.pictures.photo import Photo
    from relume.pictures.preprocessing import Preprocessing
    from relume.pictures.recording import Recording
    from relume.targets import TargetLike
    from relume.targets.activation import Activation

__all__ = ["ENGINES", "PART_SIZE", "Engine", "Progress", "prepared", "run"]

#: Rows of a part. A run that is killed loses as many at most.
PART_SIZE = 256

#: Each engine by its name: a context manager as :func:`relume.datasets.local.local` is, which gives a function that makes an
#: :class:`Engine`; or its name, ``package.module:function``, imported when first needed.
ENGINES: Registry[Callable[..., AbstractContextManager[Callable[..., Engine]]] | str] = Registry(
    "engine", "relume.engines", {"local": "relume.datasets.local:local", "ray": "relume.datasets.ray:on_ray"}
)


class RunOptions(TypedDict, total=False):
    """The further options of :func:`run`; :func:`relume.explain` describes them."""

    rectifiers: Rectifiers
    reshape: Reshape | None
    batch_size: int | None
    fuse: Fuse
    evidence: Literal["quick", "full"] | None
    activation: Activation
    labels: Sequence[str] | None
    calibration: Calibration | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        done: how many rows there are, of those that this process is to make.
        total: how many it is to make, those that an earlier one made included.
        errors: how many of the rows that this process made have an error.
        written: True if all of ``done`` are on disk: a part was just written, or nothing was begun.

    Example:
        >>> from relume.datasets import Progress
        >>> state = Progress(done=512, total=1000, errors=3, written=True)
        >>> f"{state.done / state.total:.0%}"
        '51%'
    """

    done: int
    total: int
    errors: int
    written: bool


#: A function that is called with the progress of a run.
Report: TypeAlias = "Callable[[Progress], object]"


def run(  # noqa: PLR0913 - every one is an option of the command too
    model: str | Path | Opened | nn.Module,
    source: Any,
    output: str | Path,
    *,
    methods: Iterable[MethodLike] = DEFAULT_METHODS,
    target: str | TargetLike = None,
    target_column: str | None = None,
    layer: Layers = None,
    store: Store = "saliency",
    exact: bool = False,
    limit: int | None = None,
    on: str = "local",
    address: str | None = None,
    actors: int | None = None,
    shard: tuple[int, int] = (1, 1),
    loaders: int = DEFAULT_LOADERS,
    part_size: int = PART_SIZE,
    preprocessing: Preprocessing | None = None,
    preparing: Preparing | None = None,
    progress: Report | None = None,
    **options: Unpack[RunOptions],
) -> Run:
    """Explain every picture of a source into a folder of Parquet files, or go on with a run that was stopped there.

    The manifest, a list of the items, is written first. Rows follow in parts of ``part_size``, each written whole or not at
    all, so a run that is stopped at any moment loses no more than the part that it was at: call it again to go on. An item that
    cannot be read or explained is a row with its error.

    Args:
        model: as for :func:`relume.open_model`, or what it returns; or a module, with its ``preprocessing``.
        source: as for :func:`relume.datasets.open_source`: a folder, a file that lists pictures, or a data set.
        output: the folder of the run, or a URL that fsspec opens, such as ``s3://bucket/run``.
        methods: as for :func:`relume.explain`.
        target: as for :func:`relume.explain`, or a class by its name; for items without a target of their own in the manifest.
        target_column: the column of the manifest that holds the class to explain of each item, such as ``label``.
        layer: as for :func:`relume.explain`.
        store: what is kept of maps as large as the input: ``facts`` for nothing, ``saliency``, or the signed ``maps``. Maps of
            a layer are small and always kept.
        exact: True to keep the maps of ``store`` in float32, and not in codes of 8 bits.
        limit: how many items are explained, the first ones; None for all.
        on: who does the work: ``local`` for this process, ``ray`` for a cluster; see :data:`relume.datasets.engines.ENGINES`.
        address: the address of a cluster's head node, such as ``10.0.0.1:6379``, or ``auto``. If None, that in
            ``RAY_ADDRESS``, or else a cluster is started on this machine.
        actors: how many processes of a cluster explain at once; if None, as many as it has GPUs, or else CPUs to spare.
        shard: ``(2, 4)`` for every fourth part from the second on. Others do the rest, at the same time, into the same folder.
        loaders: how many threads read and prepare pictures; 0 for none beside the one that explains.
        part_size: how many rows a part has.
        preprocessing: how a module wants its pictures.
        preparing: the options of :func:`relume.prepare`, as a dictionary. If None, the network is prepared where that works.
        progress: called with a :class:`relume.datasets.Progress` at the beginning, and after each batch and part; on a cluster
            twice a second.
        options: as for :func:`relume.explain`. ``batch_size`` is the number of pictures that run at once, at most; 8 if None.

    Raises:
        InputError: the source is empty or cannot be listed, an argument does not fit, the run was begun with others, or another
            process does the same parts.
        ModelError: the network cannot be opened.
        OutputError: the folder cannot be written to; what was written before is whole.
        RelumeError: no picture can be explained like this.

    Example:
        >>> import tempfile
        >>> import relume
        >>> from relume.demo import draw_scene
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for seed in range(3):
        ...         draw_scene(seed, ["cat"]).picture.save(f"{folder}/{seed}.png")
        ...     run = relume.run("demo", folder, f"{folder}/run", methods=["gradcam"], target="cat")
        ...     run.table(["id", "class_name", "error"]).to_pylist()[2]
        {'id': '2.png', 'class_name': 'cat', 'error': None}
    """
    batch_size, folder = options.pop("batch_size", None) or BATCH_SIZE, storage_of(output)
    _check_numbers(shard, loaders=loaders, part_size=part_size, limit=limit, actors=actors)
    engine = ENGINES[on]
    begin = resolve_name(engine) if isinstance(engine, str) else engine
    folder.check()
    source = open_source(source)
    labels, activation = options.pop("labels", None), options.pop("activation", "auto")
    opened = as_opened(model, preprocessing, labels=labels, activation=activation)
    request = RunRequest(
        methods=methods,
        target=class_index(target, opened.labels) if isinstance(target, str) else target,
        layer=layer,
        store=store,
        exact=exact,
        options=cast("Options", {"calibration": opened.calibration, "rectifiers": "all", "evidence": "quick", **options}),
    )
    with begin(model, source, address=address, actors=actors, shard=shard) as make, locked(folder, shard) as still_there:
        clear_unfinished(folder)
        record = read_record(folder)
        if record is None and parts(folder):
            raise InputError(f"{str(folder)!r} has parts of a run but no run.json; put it back, or name another folder")
        is_lost = record is not None and not folder.exists(MANIFEST)
        is_listed = record is None or is_lost or isinstance(source, Indexed)  # a data set may be another of the same class
        manifest = _listed(source, limit, target_column) if is_listed else Run.load(output).manifest
        request = dataclasses.replace(request, masks=manifest["mask"].null_count < len(manifest))
        more = {"preparing": {key: str(value) for key, value in (preparing or {}).items()}, "part_size": part_size}
        more |= {"source": source.spec, "manifest": hash_of(manifest), "target_column": target_column, "limit": limit}
        configuration = configuration_of(opened, request, **more)
        if record is not None:
            check_same(folder, record["configuration"], configuration)
        if is_lost:
            write_manifest(folder, manifest)
        work = make(opened, source, request, folder, manifest, shard, part_size, batch_size, loaders, preparing)
        work.prepare(tried=record is not None)
        if record is None:
            work.begin(model, configuration)
        work.carry_out(lambda state: (still_there(), progress and progress(state)))
    return Run.load(output)


def _check_numbers(shard: tuple[int, int], **numbers: int | None) -> None:
    """Refuse numbers that are out of range."""
    if not 1 <= shard[0] <= shard[1]:
        raise InputError(f"shards are counted from 1, such as 1/4 to 4/4; got {shard[0]}/{shard[1]}")
    for name, number in numbers.items():
        least = 0 if name == "loaders" else 1
        if number is not None and number < least:
            raise InputError(f"{name} is a number from {least} on; got {number}")


def _listed(source: Source, limit: int | None, target_column: str | None) -> pa.Table:
    """List the items of a source, with the targets of a column."""
    manifest = source.manifest().slice(0, limit)
    if target_column is None:
        return manifest
    if target_column not in manifest.column_names:
        raise InputError(f"the source has no column {target_column!r}; it has {', '.join(manifest.column_names)}")
    targets = manifest[target_column].cast(pa.string())
    return manifest.set_column(manifest.column_names.index("target"), "target", targets)


# --- The work ------------------------------------------------------------------------------------------------------------


@dataclass
class Engine(ABC):
    """The work of one process, with all that it needs; a subclass says who does the work, and how."""

    opened: Opened
    source: Source
    request: RunRequest
    folder: Storage
    manifest: pa.Table
    shard: tuple[int, int]
    part_size: int
    batch_size: int
    loaders: int
    preparing: Preparing | None
    example: Item | None = None  # the first item that can be read

    @abstractmethod
    def waiting(self) -> pa.Table:
        """Return items of the manifest that have no row yet, a batch of them at least; none if all is done."""

    @abstractmethod
    def carry_out(self, report: Report) -> None:
        """Write the rows that are missing, and report at the beginning, after each batch and part."""

    def load(self, item: Item) -> tuple[Item, Loaded]:
        """Read an item and prepare it; whatever is wrong with it becomes its row.

        Raises:
            UnreachableError: the source does not answer.
        """
        try:
            photo, image = self.opened.input_of(self.source.read(item))
            return item, (small(photo), image)
        except UnreachableError:
            raise
        except Exception as error:  # noqa: BLE001 - it stops no other
            return item, error

    def first(self) -> Iterable[tuple[Item, Loaded]]:
        """Load the first items that have no row yet."""
        return map(self.load, self.waiting().slice(0, self.batch_size).to_pylist())

    def rows(self, loaded: Iterator[tuple[Item, Loaded]], count: int) -> Iterator[pa.Table]:
        """Explain the next items in batches, and yield their rows, which a thread makes while the network runs on."""
        with ahead(
            lambda work: rows_of(*work, self.request), self._explained(loaded, count), min(1, self.loaders), 1
        ) as tables:
            yield from tables

    def _explained(self, loaded: Iterator[tuple[Item, Loaded]], left: int) -> Iterator[tuple[Batch, Results]]:
        """Explain items in batches, and yield each batch with its results."""
        while left:
            batch = [*islice(loaded, min(self.batch_size, left))]
            results = explained(self.opened, batch, self.request)
            self.batch_size = at_once(results, self.batch_size)
            left -= len(batch)
            yield batch, results

    def prepare(self, *, tried: bool) -> None:
        """Prepare the network, if it can be, after a picture of the first batch has shown that the request can be met.

        Args:
            tried: True if a run that is gone on with has shown it.

        Raises:
            RelumeError: no picture can be explained like this, or the network cannot be prepared as it is to be.
        """
        first: tuple[Item, Tensor, Exception | None] | None = None
        for item, loaded in self.first():
            if isinstance(loaded, tuple):
                error = None if tried else _error(self.opened, loaded, self.request)
                first = (item, loaded[1], error) if first is None or error is None else first
                if error is None:
                    break
        if first is None:
            return
        self.example, image, error = first
        if error is not None:
            _raise_if_general(error, self.opened, self.request)
        self.opened = prepared(self.opened, image, self.preparing)

    def begin(self, model: object, configuration: Mapping[str, Any]) -> None:
        """Write the manifest, and then what the run is, unless another shard has begun it meanwhile."""
        record = read_record(self.folder)
        if record is not None:
            check_same(self.folder, record["configuration"], configuration)
            return
        write_manifest(self.folder, self.manifest)
        options = None if isinstance(model, nn.Module) else _options_of(self.opened)
        calibration = self.request.options.get("calibration")
        record = {
            "model": None if options is None else self.opened.name,
            "model_options": options,
            "source": self.source.spec,
            "request": self.request.as_dict(),
            "labels": self.opened.labels,
            "provenance": self.opened.provenance,
            "calibration": None if calibration is None else calibration.as_dict(),
            "configuration": configuration,
            "configuration_hash": digest_of(configuration),
            "versions": versions(),
        }
        write_record(self.folder, record)


def _options_of(opened: Opened) -> dict[str, Any] | None:
    """Return the keywords by which :func:`relume.open_model` opens it again; None if there is an object of Python in them."""
    options: dict[str, Any] = {} if opened.weights is None else {"weights": str(opened.weights.absolute())}
    options |= {"model_args": dict(opened.model_args)} if opened.model_args else {}
    try:
        json.dumps(options)
    except TypeError:
        return None
    return options


def prepared(opened: Opened, image: Tensor, preparing: Preparing | None) -> Opened:
    """Return the network prepared; without options for that as it is, if it was or cannot be."""
    if preparing is None and preparation_of(opened.model) is not None:
        return opened
    try:
        network = prepare(opened.model, image[None].to(opened.device), **(preparing or {}))
    except Exception:
        if preparing is not None:
            raise
        return opened  # what is wrong with the network itself shows when it explains
    return dataclasses.replace(opened, model=network, dtype=image.dtype)


def _raise_if_general(error: Exception, opened: Opened, request: RunRequest) -> None:
    """Raise the error of a picture, if two drawn pictures give the same."""
    drawn = draw_scene(0).picture, Image.new("RGB", (256, 256))
    if all(str(_error(opened, picture, request)) == str(error) for picture in drawn):
        raise error


def _error(opened: Opened, loaded: Image.Image | tuple[Photo | Recording, Tensor], request: RunRequest) -> Exception | None:
    """Return the error that a picture gives; None if there is none. What items have as targets of their own is not asked."""
    rewind = rewinding(request.methods)
    try:
        ready = loaded if isinstance(loaded, tuple) else opened.input_of(loaded)
        opened.compare_inputs([ready], [request.target], request.methods, request.layer, **request.options)
    except Exception as error:  # noqa: BLE001 - each is compared
        return error
    finally:
        rewind()
    return None
