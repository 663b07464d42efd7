"""A calibration: how well each method points at the right object on one network, measured in mosaics of photographs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relume.engine.inputs import Model
from relume.engine.weights import fingerprint_of
from relume.errors import InputError
from relume.maps import MapInfo
from relume.measures.statistics import Estimate
from relume.pages.folder import write_folder
from relume.text import FORMAT, json_of

if TYPE_CHECKING:
    from relume.explanation.belief import Verdict

__all__ = ["FEW", "FILE", "Calibration", "Scores"]

#: The file of a calibration.
FILE = "calibration.json"

#: Fewer mosaics than these are called few.
FEW = 12


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of a method, or of a baseline, in mosaics; each from 0 to 1, with its interval over mosaics.

    Attributes:
        title: the name of the map.
        mass: the share of the map in the right cell. Chance is one cell's share of the mosaic.
        heaviest: how often the right cell has the largest share of the map; an empty map has no such cell, and counts as wrong.
        focus: the share of the map in the two cells of its class, where two of the four cells show it: Arias-Duart et al. 2022.
            None if it was not measured.
        dipart: ``mass`` in DiPart, where the head of the network reads the features of the right cell alone: Rao et al. 2022.
        difull: ``mass`` in DiFull, where nothing but the right cell can matter, so a map elsewhere is wrong: Rao et al. 2022.
        empty: how many maps were zero everywhere; these count in ``heaviest`` and in no other score.
        note: how a wrapper made the map, in words.

    Example:
        >>> from relume.explanation import Scores
        >>> from relume.measures import Estimate
        >>> scores = Scores("Grad-CAM", Estimate(0.69, 0.67, 0.71, 25), Estimate(0.9, 0.85, 0.95, 25))
        >>> str(scores.mass)
        '0.69 [0.67, 0.71]'
    """

    title: str
    mass: Estimate
    heaviest: Estimate
    focus: Estimate | None = None
    dipart: Estimate | None = None
    difull: Estimate | None = None
    empty: int = 0
    note: str = ""

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Scores:
        """Return the scores that :meth:`Calibration.as_dict` wrote."""
        plain: dict[str, Any] = {"title": str(data["title"]), "empty": int(data["empty"]), "note": str(data.get("note", ""))}
        estimates: dict[str, Any] = {
            key: Estimate(**{k: math.nan if v is None else v + 0 for k, v in value.items()})  # type: ignore[arg-type]
            for key, value in data.items()
            if key not in plain and value is not None
        }
        return cls(**plain, **estimates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """The scores of methods on one network, in mosaics whose truth is known: what :func:`relume.calibrate` returns.

    It belongs to the network's weights, the layer and the methods: :meth:`check` refuses another network.

    Attributes:
        fingerprint: the SHA-256 of the network's weights, before any preparation.
        model: the network's name.
        layer: the layer that methods read; None if none does.
        methods: the scores of each map, by the map's key.
        baselines: the scores of maps that know nothing of the network: ``sobel_edges``, ``uniform``, ``random``.
        mosaics: how many mosaics there were.
        photos: how many photographs stand in them, each in one cell.
        grid: how many cells a side of a mosaic has.
        size: height and width of a mosaic, in pixels of the network's input.
        confidence: the least probability of a photograph's predicted class.
        usable: how many of the photographs given reached that probability.
        given: how many photographs were given.
        pictures: what was put together, in words: ``of your photographs`` or ``drawn scenes``.
        agreement: the area under the ROC curve (AUC) with which the correlation of guided backpropagation with Grad-CAM tells
            maps whose heaviest cell is right from others. It holds inside mosaics only. None if it cannot be computed.
        notes: what a reader must know: what was left out and why.
        provenance: where it comes from, as plain data: seed, activation, preprocessing, versions.

    Example:
        >>> import relume
        >>> demo = relume.Calibration.demo()
        >>> demo["gradcam"].mass.mean > demo["sobel_edges"].mass.mean
        True
        >>> demo.level("guided_gradcam")
        'points at its object'
        >>> demo.check(relume.open_model("demo", "cpu").model)
    """

    fingerprint: str
    model: str
    layer: str | None
    methods: Mapping[str, Scores]
    baselines: Mapping[str, Scores]
    mosaics: int
    photos: int
    grid: int
    size: tuple[int, int]
    confidence: float
    usable: int
    given: int
    pictures: str = "of your photographs"
    agreement: float | None = None
    notes: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, key: str) -> Scores:
        for scores in (self.methods, self.baselines):
            if key in scores:
                return scores[key]
        raise InputError(f"this calibration has no method {key!r}; it holds {', '.join((*self.methods, *self.baselines))}")

    @property
    def few(self) -> bool:
        """True if there were fewer than :data:`FEW` mosaics."""
        return self.mosaics < FEW

    @property
    def chance(self) -> float:
        """The share of a mosaic that one cell has."""
        return 1 / self.grid**2

    def check(self, model: Model) -> None:
        """Refuse another network than the calibrated one; a prepared network counts as the one that it was prepared from.

        Raises:
            InputError: it has other weights.
        """
        found = fingerprint_of(model)
        if found != self.fingerprint:
            raise InputError(
                f"the calibration is of a network with other weights ({self.model}, {self.fingerprint[:8]}…), and this network "
                f"has {found[:8]}…; calibrate this one, or leave the calibration out"
            )

    def verdict(self, method: str) -> Verdict:
        """Return the verdict on a method: its level, and the sentence that results say of it.

        Raises:
            InputError: the method is not in this calibration.
        """
        from relume.explanation.belief import verdict_of

        scores = self[method]
        return verdict_of(self, MapInfo(method, scores.title, note=scores.note))

    def sentence(self, method: str) -> str:
        """Return the sentence that results say of a method: its verdict, with the numbers it rests on."""
        return self.verdict(method).text

    def level(self, method: str) -> str:
        """Return the level of a method in words: ``points at its object``, ``partly`` or ``no better than edges``."""
        from relume.explanation.belief import LEVELS

        return LEVELS[self.verdict(method).level]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, for JSON; what is undefined is null."""
        plain: dict[str, Any] = _without_nan(asdict(self))
        return plain

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Calibration:
        """Return the calibration that :meth:`as_dict` wrote."""
        scores = {part: {k: Scores.read(v) for k, v in data[part].items()} for part in ("methods", "baselines")}
        counts = {key: int(data[key]) for key in ("mosaics", "photos", "grid", "usable", "given")}
        if counts["grid"] < 2 or "sobel_edges" not in scores["baselines"]:
            raise ValueError("it has no grid of cells, or no row of edges")
        return cls(**{**data, **counts, **scores, "size": tuple(data["size"]), "notes": tuple(data["notes"])})

    def save(self, folder: str | Path) -> Path:
        """Write :data:`FILE` into ``folder``, whole or not at all, and return the folder.

        Raises:
            OutputError: the folder cannot be written to.
        """
        return write_folder(Path(folder), {FILE: json_of(self.as_dict(), allow_nan=False)})

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration from its folder or its file.

        Raises:
            InputError: there is none, or it cannot be read.

        Example:
            >>> import tempfile
            >>> import relume
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     back = relume.Calibration.load(relume.Calibration.demo().save(folder))
            >>> back == relume.Calibration.demo()
            True
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        try:
            data = json.loads(path.read_bytes())
            if data.pop("format") != FORMAT:
                raise InputError(f"{str(path)!r} was written by another version of relume; calibrate again")
            return cls.read(data)
        except OSError as error:
            raise InputError(f"cannot read {str(path)!r}: {error.strerror}; write one by relume calibrate") from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{str(path)!r} is no calibration ({error!r}); write one by relume calibrate") from None

    @classmethod
    def demo(cls) -> Calibration:
        """Return the calibration of the demo network, from scenes; ``python -m benchmarks.belief demo`` makes it."""
        return cls.load(Path(__file__).parents[1] / "demo" / FILE)


def _without_nan(data: Any) -> Any:
    """Replace NaN by None in nested data."""
    if isinstance(data, Mapping):
        return {key: _without_nan(value) for key, value in data.items()}
    return None if isinstance(data, float) and math.isnan(data) else data
