"""The engine of a cluster: Ray Data divides the items among actors, each of which explains them as one machine does."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
from torch import nn

from relume.datasets.cluster import check_nodes, check_shared, connected, in_words, places
from relume.datasets.columns import FORMAT, schema_of
from relume.datasets.engines import Engine, Progress, Report, prepared
from relume.datasets.loading import ahead
from relume.datasets.python import Indexed
from relume.datasets.rows import Loaded
from relume.datasets.source import Item
from relume.datasets.storage import is_url, storage_of
from relume.datasets.store import MANIFEST, PARQUET, PARTS, Run, parquet, read_record, tidied
from relume.datasets.tally import Tally
from relume.engine.preparation import preparation_of
from relume.engine.weights import weights_hash
from relume.errors import InputError, ModelError, OutputError, RelumeError
from relume.models.opened import Opened
from relume.models.sources import open_model
from relume.text import first_line

__all__ = ["OnRay", "on_ray"]

#: The folder of the run in which Ray keeps what is done, until all is.
CHECKPOINT = "checkpoint"

#: The file that says which run that is of.
MARK = "checkpoint.json"

#: Blocks of rows for each actor, at least: the work is divided evenly, and an actor that is killed loses one of them.
_BLOCKS = 4

#: The error of a picture over which a process was killed, once in a batch and then alone.
KILLED = "the process that explained it was killed twice, by this picture or for lack of memory; look at it, or leave it out"

#: Seconds between two looks at how far the run is, and that Ray has to end it.
_LOOK, _END = 0.5, 30


@contextmanager
def on_ray(
    model: object, source: object, *, address: str | None, actors: int | None, shard: tuple[int, int]
) -> Iterator[Callable[..., Engine]]:
    """Connect to a cluster, and give the engine that works there.

    Raises:
        InputError: what is to be done cannot be sent to a cluster, or the cluster cannot be used.
    """
    if isinstance(model, nn.Module) or (isinstance(model, Opened) and preparation_of(model.model) is not None):
        raise InputError(
            "a cluster is sent a spec by which each node opens the network, and no network in memory; write a function that "
            "returns it and give 'package.module:function', or save it and give its file, and leave preparing it to the run"
        )
    if isinstance(source, Indexed):
        raise InputError(
            f"the data set {source.spec!r} is in the memory of this process, where no node reads it; give a folder, a list or "
            "tars that all nodes reach"
        )
    if shard != (1, 1):
        raise InputError("a cluster divides the work by itself; leave the shard out")
    with connected(address, actors):
        number, gpus = places(actors)
        yield functools.partial(OnRay, actors=number, gpus=gpus)


@dataclass(kw_only=True)
class OnRay(Engine):
    """The engine of a cluster. A copy without the network is sent to the nodes, which open the network there.

    Attributes:
        actors: how many processes explain at once.
        gpus: how many GPUs each has.
        run: the hash of the configuration, by which a node knows that it sees the same run.
        home: the folder that relative paths begin in.
    """

    actors: int
    gpus: int
    run: str = ""
    home: str = dataclasses.field(default_factory=os.getcwd)

    @functools.cached_property
    def pending(self) -> pa.Table:
        """The items that have no row yet."""
        return self.manifest.filter(pc.invert(pc.is_in(self.manifest["id"], pa.array(tidied(self.folder), pa.string()))))

    def waiting(self) -> pa.Table:
        """Return the items that have no row yet."""
        return self.pending

    def first(self) -> Iterator[tuple[Item, Loaded]]:
        """Load the first items that have no row yet in another process: a picture that kills it is to leave the driver alive.

        Raises:
            UnreachableError: the source does not answer.
        """
        import ray

        load = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=_here())(OnRay.load)
        for item in self.waiting().slice(0, self.batch_size).to_pylist():
            try:
                yield ray.get(load.remote(self._job(), item))
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
                continue  # its row will say so
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None

    def carry_out(self, report: Report) -> None:
        """Have the rows that are missing written by the cluster, and report how far it is.

        Raises:
            InputError: a node does not see the run, or cannot open the network or the first picture.
            RelumeError: Ray gave up.
        """
        total, left = len(self.manifest), len(self.pending)
        report(Progress(total - left, total, 0, written=True))
        if not left:
            return
        job = self._job()
        job.run = (read_record(self.folder) or {})["configuration_hash"]
        check_nodes(job.folder, job.run)
        self._checkpoint(job.run)
        try:
            errors = self._watched(
                job, lambda done, errors: report(Progress(total - left + done, total, errors, written=False))
            )
        except KeyboardInterrupt:
            report(Progress(len(Run.load(str(self.folder))), total, 0, written=True))
            raise
        if missing := total - len(Run.load(str(self.folder))):
            raise OutputError(
                f"{missing} rows are not in {str(self.folder)!r}, so nodes wrote them elsewhere; name a place that all nodes "
                "share, or see that they do, and run the same again"
            )
        self.folder.remove(MARK)
        report(Progress(total, total, errors, written=True))

    # --- The driver -------------------------------------------------------------------------------------------------------

    def _job(self) -> OnRay:
        """Return the copy that is sent to a node: without the network and the manifest, and with an absolute folder."""
        place = storage_of(self.folder.for_arrow()[1]) if not is_url(str(self.folder)) else self.folder
        opened = dataclasses.replace(self.opened, model=cast("nn.Module", None))
        return dataclasses.replace(self, opened=opened, folder=place, manifest=self.manifest.schema.empty_table())

    def _checkpoint(self, run: str) -> None:
        """Tell Ray by its checkpoint which items have rows: the rows that are there decide, whatever ended the last run.

        Raises:
            InputError: the checkpoint is of another run.
        """
        names = self.folder.names(CHECKPOINT)
        if names and self._mark() != run:
            raise InputError(
                f"the checkpoint in {str(self.folder)!r} is of another run; remove {CHECKPOINT!r} and {MARK!r} there, and go on"
            )
        self.folder.put(MARK, json.dumps({"format": FORMAT, "run": run}).encode())
        for name in names:
            self.folder.remove(f"{CHECKPOINT}/{name}")
        done = self.manifest.filter(pc.invert(pc.is_in(self.manifest["id"], self.pending["id"]))).select(["id"])
        if len(done):
            self.folder.put(f"{CHECKPOINT}/done.parquet", parquet(done))

    def _mark(self) -> object:
        """Read which run the checkpoint is of."""
        try:
            with self.folder.open(MARK) as file:
                return json.loads(file.read())["run"]
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def _watched(self, job: OnRay, report: Callable[[int, int], object]) -> int:
        """Have Ray do the work, report while it does, and return how many rows have an error."""
        import ray

        tally = ray.remote(num_cpus=0, scheduling_strategy=_here())(Tally).remote()
        failure: list[RelumeError] = []

        def work() -> None:
            try:
                self._write(job, tally)
            except BaseException as error:  # noqa: BLE001 - it is raised where the run is waited for
                failure.append(_gave_up(error))  # and not the error, which would keep alive what is to end before Ray does

        thread = threading.Thread(target=work, name="relume-ray", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(_LOOK)
                done, errors, refusal = cast("tuple[int, int, RelumeError | None]", ray.get(tally.state.remote()))
                if refusal is not None:
                    raise refusal
                report(done, errors)
        except ray.exceptions.RayError as error:
            raise _gave_up(error) from error
        finally:
            ray.kill(tally)  # without which actors cannot go on: so ends what is not waited for any more
            thread.join(_END)
        if failure:
            raise failure[0]
        return errors

    def _write(self, job: OnRay, tally: Any) -> None:
        """Have Ray Data read the manifest, explain its items and write their rows."""
        import ray
        from ray.data import ActorPoolStrategy, DataContext
        from ray.data.checkpoint import CheckpointConfig

        files, root = self.folder.for_arrow()
        context = DataContext.get_current().copy()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.use_datasource_v2 = False  # which starts actors to read the footers of many files, and this reads one
        context.checkpoint_config = CheckpointConfig("id", f"{root}/{CHECKPOINT}", override_filesystem=files)
        context.checkpoint_config.checkpoint_actor_pool_max_size = 1
        rows = min(self.part_size, math.ceil(len(self.pending) / (_BLOCKS * self.actors)))
        with DataContext.current(context):
            manifest = ray.data.read_parquet(f"{root}/{MANIFEST}", filesystem=files)
            explained = manifest.repartition(math.ceil(len(self.pending) / rows)).map_batches(
                Explainer,
                fn_constructor_args=(job, tally),
                compute=ActorPoolStrategy(size=self.actors),
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=1,
                num_gpus=self.gpus,
            )
            explained.write_parquet(f"{root}/{PARTS}", filesystem=files, schema=schema_of(self.request), **PARQUET)

    # --- The nodes --------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the network on a node, and see that it is the same and that the first picture can be read.

        Raises:
            RelumeError: it is not, or cannot.
        """
        with suppress(OSError):
            os.chdir(self.home)
        check_shared(self.folder, self.run)
        record = read_record(self.folder) or {}
        options: dict[str, Any] = {"weights": self.opened.weights, "model_args": self.opened.model_args}
        network = open_model(self.opened.name, **options).model
        if weights_hash(network) != record["configuration"]["weights"]:
            raise ModelError(f"{self.opened.name!r} opens a network of other weights there")
        self.opened = dataclasses.replace(self.opened, model=network)
        if self.example is None:
            return
        _, loaded = self.load(self.example)
        if not isinstance(loaded, tuple):
            raise InputError(f"it cannot read {self.example['id']!r}: {loaded}; see that all nodes reach the source")
        self.opened = prepared(self.opened, loaded[1], self.preparing)


def _here() -> Any:
    """Return the strategy by which Ray runs something on the node of this process."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _gave_up(error: BaseException) -> RelumeError:
    """Return the error that ended the work of Ray as a sentence."""
    words = in_words(error).rstrip(".")
    if re.search(r"^relume\.[\w.]+: ", str(error), re.MULTILINE):
        return RelumeError(words)
    return RelumeError(f"Ray gave up: {words}; what is written is whole: see to that, and run the same again")


class Explainer:
    """An actor of Ray Data: it opens the network once, and makes rows of blocks of the manifest."""

    def __init__(self, job: OnRay, tally: Any) -> None:
        import ray

        self._job, self._tally = job, tally
        try:
            job.open()
        except Exception as error:
            node = ray.util.get_node_ip_address()
            refusal = InputError(f"the node {node} cannot explain: {first_line(error)}")
            ray.get(tally.refuse.remote(refusal))
            raise

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Explain the items of a block in batches.

        An item over which a process was killed is explained alone; after a second time it gets a row with an error.
        """
        import ray

        job, task, items = self._job, ray.get_runtime_context().get_task_id(), block.to_pylist()
        deaths = ray.get(self._tally.start.remote(task, block["id"].to_pylist()))
        for item, number in zip(items, deaths, strict=True):
            if number:
                loaded = (item, RuntimeError(KILLED)) if number > 1 else next(map(job.load, self._begun([item])))
                yield from self._counted(task, job.rows(iter([loaded]), 1))
        innocent = [item for item, number in zip(items, deaths, strict=True) if not number]
        with ahead(job.load, self._begun(innocent), job.loaders, 2 * max(job.batch_size, job.loaders)) as results:
            yield from self._counted(task, job.rows(results, len(innocent)))

    def _begun(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items, which are noted as begun before they are read."""
        import ray

        remaining = iter(items)
        while batch := [*islice(remaining, self._job.batch_size)]:
            ray.get(self._tally.begin.remote([item["id"] for item in batch]))
            yield from batch

    def _counted(self, task: str | None, tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
        """Yield rows, and note that their items have ended."""
        for table in tables:
            self._tally.end.remote(task, table["id"].to_pylist(), len(table) - table["error"].null_count)
            yield table
