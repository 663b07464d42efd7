"""The search: repeated patches that the network of a run uses, by candidates, pasting, and a look into all pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from relume.datasets.codes import decode
from relume.datasets.columns import maps_of
from relume.datasets.folders import Folder
from relume.datasets.shortcuts.candidates import (
    LEAST_MEMBERS,
    clusters,
    likely_windows,
    peaks_of,
    resized,
    typical_first,
    whitened,
)
from relume.datasets.shortcuts.network import Network, stage_before
from relume.datasets.shortcuts.patches import (
    TOLERANCE,
    Patch,
    Places,
    aligned_patch,
    found_places,
    pasted,
    patch_at_one_place,
    unit_of,
    windows_at,
)
from relume.datasets.shortcuts.pictures import pictures_of
from relume.datasets.shortcuts.suspects import Box, Pasted, Picture, Shown, Suspect, Suspects, Where
from relume.datasets.source import Source
from relume.datasets.store import Run
from relume.errors import RelumeError
from relume.models.opened import Opened
from relume.text import first_line

__all__ = ["FLAGGED_RISE", "LEAST_STRENGTH", "find_suspects"]

#: A patch at one place is flagged if pasting it raises the probability of the class by so much.
FLAGGED_RISE = 0.1

#: Weaker suspects are not listed.
LEAST_STRENGTH = 0.02

#: Pictures without which the search for patches at any place finds parts of things only.
LEAST_PICTURES = 300

#: A class with fewer pictures is not searched.
LEAST_OF_CLASS = 20

_PASTED_ON, _LEAST_PASTED_ON = 32, 8
_MEMBERS, _ALIGNED, _OTHERS = 48, 24, 120  # pictures and windows that a patch is made of, and those that it is compared with
_TRIED, _SOUGHT = 16, 6  # candidates that are pasted, and that are looked for in all pictures
_NEAR, _MOSTLY = 4, 0.8  # pixels between places that are the same, and the share of the places that are, of a patch at one
_SAME_PICTURES = 0.5  # of two suspects' pictures in common: then one of them is dropped
_SHOWN, _EXAMPLES = 6, 3

Numbers = NDArray[np.intp]


class _LeftOutError(Exception):
    """The reason why nothing can be searched, in a sentence."""


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A group of pictures of a class, and the patch that they share."""

    class_index: int
    members: Numbers
    patch: Patch


@dataclass(frozen=True, eq=False)
class _Tried:
    """A candidate that was pasted on pictures, with the probability of its class before and after, ``(pictures,)`` each."""

    candidate: _Candidate
    pictures: Numbers
    places: Places
    before: NDArray[np.float32]
    after: NDArray[np.float32]

    @property
    def rise(self) -> float:
        return float(self.after.mean() - self.before.mean())

    @property
    def weight(self) -> float:
        """The strength, if the patch were in all pictures of the class and in no other."""
        return self.rise * min(self.candidate.patch.sameness / 100, 1)


def find_suspects(
    run: Run,
    opened: Opened | None = None,
    source: Source | None = None,
    *,
    limit: int = 10_000,
    least: float = LEAST_STRENGTH,
    seed: int = 0,
) -> Suspects:
    """Find repeated patches that the network of a run uses.

    For each class, the search groups pictures whose maps have their maxima at one place, or on what the network sees alike. It
    takes the pixels that a group shares and others do not, pastes them on pictures of other classes, and measures by how much
    that raises the probability of the class. Then it looks for the patch in all pictures. If a run lacks something, that is no
    error: what is not searched is a sentence in ``left_out``.

    Args:
        run: the run, finished or not; it has a map of a layer, such as Grad-CAM's.
        opened: its network; opened again as the run says if None.
        source: its pictures; opened again as the run says if None.
        limit: how many pictures are searched at most, drawn at random where there are more. Each takes up to 200 KB in a
            temporary file.
        least: weaker suspects are not listed.
        seed: seeds what is drawn at random.

    Example:
        >>> import tempfile
        >>> import relume
        >>> from relume.datasets.shortcuts import find_suspects
        >>> from relume.demo import draw_scene
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for seed in range(3):
        ...         draw_scene(seed, ["cat"]).picture.save(f"{folder}/{seed}.png")
        ...     run = relume.run("demo", folder, f"{folder}/run", methods=["gradcam"])
        ...     find_suspects(run).left_out[-1]
        'no class has 20 pictures, so none was searched'
    """
    left_out: list[str] = []
    try:
        rows = _enough(_rows(run, limit, seed, left_out))
        network = _network(run, opened, rows)
        items, reader = _items(run, source, rows)
        with pictures_of(items, reader, network.opened, network.size) as (pictures, numbers):
            if len(numbers) < len(items):
                left_out.append(f"{len(items) - len(numbers)} pictures, which could not be read again as they were")
            rows = _enough(rows[numbers])
            return _Search(rows, network, pictures, np.random.default_rng(seed), left_out, least).suspects()
    except (_LeftOutError, RelumeError) as reason:
        return Suspects(left_out=(*left_out, first_line(reason)))


# --- What a run has ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows that can be searched: ids, the class explained in each ``(N,)``, the maps ``(N, 16, 16)``, and the layer."""

    ids: NDArray[np.str_]
    targets: Numbers
    maps: torch.Tensor
    names: dict[int, str]
    size: tuple[int, int]
    layer: str

    def __getitem__(self, some: Numbers) -> _Rows:
        return replace(self, ids=self.ids[some], targets=self.targets[some], maps=self.maps[torch.from_numpy(some)])

    @cached_property
    def classes(self) -> list[int]:
        """The classes with enough pictures."""
        return sorted(index for index, count in Counter(self.targets.tolist()).items() if count >= LEAST_OF_CLASS)


def _rows(run: Run, limit: int, seed: int, left_out: list[str]) -> _Rows:
    """Read the rows that can be searched, and say what is left out."""
    columns = ["id", "target", "class_name", "versus", "description", "layer", "input_shape", "error"]
    schema = run.table(["id"]).schema
    maps = {key: kept for key, kept in maps_of(schema).items() if kept["place"] == "layer" and kept["column"]}
    key = "gradcam" if "gradcam" in maps else next(iter(maps), None)
    if key is None:
        raise _LeftOutError("the run has no map of a layer; run it with Grad-CAM to search for repeated patches")
    table = run.table([*columns, f"{key}_empty"])  # without the maps: memory has room for those of a few
    table = table.filter(pc.field("error").is_null() & pc.field("target").is_valid() & ~pc.field(f"{key}_empty"))
    table = table.filter(pc.field("versus").is_null() & pc.field("description").is_null())
    shapes = [*map(tuple, table["input_shape"].to_pylist())]
    if not shapes:
        raise _LeftOutError("no picture has a class that is explained by a map, so none was searched")
    shape, count = Counter(shapes).most_common(1)[0]
    if len(shape) != 3:
        raise _LeftOutError("repeated patches are searched in photos, and the run is of other recordings")
    if count < len(table):
        left_out.append(f"{len(table) - count} pictures, whose input has another size than that of most")
    numbers = np.array([i for i, other in enumerate(shapes) if other == shape])
    if count > limit:
        left_out.append(f"{count - limit} of {count} pictures: {limit} were drawn at random")
        numbers = numbers[np.sort(np.random.default_rng(seed).choice(count, limit, replace=False))]
    rows = table.take(numbers).to_pylist()
    heats = _heats(run, {row["id"] for row in rows}, key, maps[key])
    return _Rows(
        np.array([row["id"] for row in rows]),
        np.array([row["target"] for row in rows]),
        torch.stack([heats[row["id"]] for row in rows]),
        {row["target"]: row["class_name"] for row in rows},
        shape[1:],
        str(rows[0]["layer"]).split(", ")[-1],
    )


def _heats(run: Run, ids: set[str], key: str, kept: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Read the maps of some rows, ``(16, 16)`` each."""
    column, scale, shape = kept["column"], f"{key}_scale", f"{key}_shape"
    rows = (row for row in run.rows(["id", column, scale, shape]) if row["id"] in ids)
    return {row["id"]: resized(decode(row[column], row[scale], row[shape], kept["code"])) for row in rows}


def _enough(rows: _Rows) -> _Rows:
    """Return the rows, if there is enough to compare."""
    if not rows.classes:
        raise _LeftOutError(f"no class has {LEAST_OF_CLASS} pictures, so none was searched")
    if len(set(rows.targets.tolist())) < 2:
        raise _LeftOutError("the run explains one class only, and patches are compared with pictures of others")
    return rows


def _network(run: Run, opened: Opened | None, rows: _Rows) -> Network:
    """Open the network again, if it was not given."""
    if opened is None:
        if run.record["model"] is None:
            raise _LeftOutError("the network was given in Python: give it again to search for repeated patches")
        try:
            opened = run._opened(run.record["model"])
        except RelumeError as error:
            raise _LeftOutError(f"the network cannot be opened again: {first_line(error)}") from None
    return Network(opened, rows.size)


def _items(run: Run, source: Source | None, rows: _Rows) -> tuple[list[dict[str, Any]], Source]:
    """Find the items of the rows in the manifest, and the source that reads them."""
    try:
        items = {item["id"]: item for item in run.manifest.filter(pc.field("id").isin(pa.array(rows.ids))).to_pylist()}
        if source is None:  # a path is read from wherever this runs
            source = Folder(run.record["source"], "") if all(item["path"] for item in items.values()) else run._source()
    except RelumeError as error:
        raise _LeftOutError(f"the pictures cannot be read again: {first_line(error)}") from None
    return [items[id_] for id_ in rows.ids.tolist()], source


# --- The search ----------------------------------------------------------------------------------------------------------


@dataclass
class _Search:
    """A search in pictures that are there."""

    rows: _Rows
    network: Network
    pictures: Picture
    rng: Generator
    left_out: list[str]
    least: float

    def suspects(self) -> Suspects:
        """Search both lists."""
        self.peaks = peaks_of(self.rows.maps)
        self._look()
        small = sorted(set(self.rows.names) - set(self.rows.classes))
        if small:
            self.left_out.append(f"classes with fewer than {LEAST_OF_CLASS} pictures: {self._names(small)}")
        strongest = sorted(self._candidates(), key=lambda candidate: -candidate.patch.sameness)[:_TRIED]
        tried = [one for candidate in strongest if (one := self._tried(candidate)) is not None]
        tried = sorted(tried, key=lambda one: -one.weight)[:_SOUGHT]
        tried = [one for one in tried if one.weight >= self.least]
        found = found_places([one.candidate.patch for one in tried], self.pictures)
        suspects = sorted(map(self._suspect, tried, found), key=lambda suspect: -suspect.strength)
        names = tuple(self.rows.names[index] for index in self.rows.classes)
        return Suspects(*self._lists(suspects), tuple(self.left_out), len(self.rows.ids), names)

    def _names(self, classes: Sequence[int], most: int = 10) -> str:
        more = f" and {len(classes) - most} more" if len(classes) > most else ""
        return ", ".join(self.rows.names[index] for index in classes[:most]) + more

    def _look(self) -> None:
        """Ask the network for the probabilities of all pictures, and for the activations at the maxima."""
        try:
            self.network = replace(self.network, layer=stage_before(self.network, self.pictures[0], self.rows.layer))
        except RelumeError as error:
            self.left_out.append(f"patches at any place: {first_line(error)}")
        probabilities, self.activations = [], np.zeros((len(self.peaks), 0), np.float32)
        values, step = list[NDArray[np.float32]](), 16
        for i in range(0, len(self.pictures), step):
            batch, is_exclusive, activations = self.network.look(self.pictures[i : i + step])
            probabilities.append(batch)
            if activations is not None:
                own = self.peaks[(self.peaks.pictures >= i) & (self.peaks.pictures < i + step)]
                cells = (own.centres * activations.shape[2:]).astype(int)
                values.append(activations.numpy()[own.pictures - i, :, cells[:, 0], cells[:, 1]])
        self.probabilities = np.concatenate(probabilities)
        if values:
            self.activations = np.concatenate(values)
        highest = self.probabilities.argmax(1)[:, None] == np.arange(self.probabilities.shape[1])
        self.predicted = highest if is_exclusive else self.probabilities >= 0.5

    def _sample(self, numbers: Numbers, most: int) -> Numbers:
        return numbers if len(numbers) <= most else np.sort(self.rng.choice(numbers, most, replace=False))

    # --- Candidates ---

    def _candidates(self) -> Iterator[_Candidate]:
        """Yield the groups of each class that share a patch."""
        is_aligned = len(self.pictures) >= LEAST_PICTURES
        if not is_aligned:
            self.left_out.append(f"patches at any place: there are fewer than {LEAST_PICTURES} pictures")
        for index in self.rows.classes:
            of_class = self.rows.targets[self.peaks.pictures] == index
            own, others = np.flatnonzero(of_class), self._sample(np.flatnonzero(~of_class), _OTHERS)
            theirs, _ = windows_at(self.pictures, self.peaks[others])
            without = self.pictures[self._sample(np.flatnonzero(~self.predicted[:, index]), _OTHERS)]
            for group in self._groups(own, np.flatnonzero(~of_class)):
                members = np.unique(self.peaks.pictures[group])
                if len(members) < LEAST_MEMBERS or not len(without):
                    continue
                nearest = self.peaks[group[:_ALIGNED]]
                patches = [patch_at_one_place(self.pictures[self._sample(members, _MEMBERS)], without)]
                if is_aligned:
                    patches.append(aligned_patch(*windows_at(self.pictures, nearest), theirs, unit_of(self.pictures)))
                yield from (_Candidate(index, members, patch) for patch in patches if patch is not None)

    def _groups(self, own: Numbers, others: Numbers) -> Iterator[Numbers]:
        """Yield groups of a class's maxima: those at one place, and those on what the network sees alike."""
        points = whitened(self.activations[own])
        for group in (*likely_windows(self.peaks[own], self.peaks[others]), *clusters(points)):
            if len(group) >= LEAST_MEMBERS:
                yield own[typical_first(points, group)]

    # --- Evidence ---

    def _tried(self, candidate: _Candidate) -> _Tried | None:
        """Paste a patch on pictures of other classes without it, and ask for the probability of its class.

        None where nearly all of them have it, as a patch of the background's colour.
        """
        patch, index = candidate.patch, candidate.class_index
        numbers = self._sample(np.flatnonzero(~self.predicted[:, index]), _PASTED_ON * 3 // 2)
        ((distances, _),) = found_places([patch], self.pictures[numbers])
        without = numbers[distances >= TOLERANCE]
        if len(without) < _LEAST_PASTED_ON:
            return None
        numbers = np.sort(self.rng.permutation(without)[:_PASTED_ON])
        places = patch.places[self.rng.integers(len(patch.places), size=len(numbers))]
        after = [pasted(patch, self.pictures[i], place) for i, place in zip(numbers, places, strict=True)]
        probabilities = self.network.probabilities(after)[:, index]
        return _Tried(candidate, numbers, places, self.probabilities[numbers, index], probabilities)

    def _suspect(self, tried: _Tried, everywhere: tuple[NDArray[np.float32], Places]) -> Suspect:
        """Put together what is shown of a patch, given its distance from all pictures and its place in them."""
        candidate, index, patch = tried.candidate, tried.candidate.class_index, tried.candidate.patch
        distances, places = everywhere
        found = distances.argsort(kind="stable")[: int((distances < TOLERANCE).sum())]
        is_in = self.predicted[:, index]
        place = _one_place(places[found[is_in[found]]], unit_of(self.pictures))
        inside, outside = int(is_in[found].sum()), int((~is_in[found]).sum())
        of_in, of_out = int(is_in.sum()), int((~is_in).sum())
        return Suspect(
            rank=0,
            class_index=index,
            class_name=self.rows.names[index],
            where="any place" if place is None else "same place",
            strength=max(tried.weight * (inside / max(of_in, 1) - outside / max(of_out, 1)), 0.0),
            flagged=place is not None and tried.rise >= FLAGGED_RISE,
            rise=tried.rise,
            p_before=float(tried.before.mean()),
            p_after=float(tried.after.mean()),
            pasted_on=len(tried.pictures),
            found_in=inside,
            of_in=of_in,
            found_out=outside,
            of_out=of_out,
            sameness=patch.sameness,
            members=tuple(self.rows.ids[candidate.members].tolist()),
            found=tuple(self.rows.ids[found].tolist()),
            patch=patch.pixels,
            mask=patch.mask,
            place=None if place is None else self._box(patch, place),
            mean_map=self.rows.maps[torch.from_numpy(candidate.members)].mean(0).numpy(),
            shown=tuple(self._shown(patch, i, places[i]) for i in found[is_in[found]][:_SHOWN]),
            pasted=tuple(self._pasted(tried, i) for i in range(min(_EXAMPLES, len(tried.pictures)))),
        )

    def _box(self, patch: Patch, place: NDArray[np.int64]) -> Box:
        (top, left), (height, width) = map(int, place), patch.mask.shape
        return left, top, left + width, top + height

    def _shown(self, patch: Patch, number: int, place: NDArray[np.int64]) -> Shown:
        return Shown(str(self.rows.ids[number]), np.array(self.pictures[number]), self._box(patch, place))

    def _pasted(self, tried: _Tried, i: int) -> Pasted:
        number, patch, place = tried.pictures[i], tried.candidate.patch, tried.places[i]
        before = np.array(self.pictures[number])
        after, box = pasted(patch, before, place), self._box(patch, place)
        return Pasted(str(self.rows.ids[number]), before, after, box, float(tried.before[i]), float(tried.after[i]))

    def _lists(self, suspects: Sequence[Suspect]) -> tuple[tuple[Suspect, ...], tuple[Suspect, ...]]:
        """Sort suspects, the strongest first, into the two lists; drop what is found in the same pictures as a stronger one."""
        kept: list[Suspect] = []
        for suspect in suspects:
            if suspect.strength >= self.least and not any(_overlap(suspect, other) > _SAME_PICTURES for other in kept):
                rank = 1 + sum(other.where == suspect.where for other in kept)
                kept.append(replace(suspect, rank=rank))
        same, anywhere = (tuple(s for s in kept if s.where == where) for where in get_args(Where))
        return same, anywhere


def _one_place(places: Places, unit: float) -> NDArray[np.int64] | None:
    """Return the place ``(2,)`` that most of the places ``(N, 2)`` are at, give or take a few pixels; None if there is none."""
    if not len(places):
        return None
    middle = np.median(places, 0).round().astype(np.int64)
    near = (np.abs(places - middle) <= _NEAR * unit).all(1).mean()
    return middle if near >= _MOSTLY else None


def _overlap(one: Suspect, other: Suspect) -> float:
    """Return the share of their pictures that two suspects of a class have in common."""
    found, others = set(one.found), set(other.found)
    return len(found & others) / max(len(found | others), 1) if one.class_index == other.class_index else 0.0
