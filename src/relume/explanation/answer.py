"""What was found: raw maps, scores, coverage and provenance, and the words for them."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Self, TypeVar, overload

import numpy as np
from torch import Tensor

from relume.engine.coverage import Coverage
from relume.errors import InputError
from relume.explanation.quick_checks import Evidence
from relume.explanation.remarks import NO_GRADCAM, NO_GRADIENT
from relume.maps import MapInfo, array, saliency_at
from relume.pictures.photo import Photo
from relume.pictures.scale import OWN, Scaling
from relume.targets.activation import Quantity, Resolved, activated, how_to_name
from relume.text import decimal, significant

__all__ = ["Answer", "compared"]

#: Of fewer images than these all must be without Grad-CAM before the layer is to blame.
FEW = 3

#: A map so many times weaker than the strongest of the same method's beside it is said to be weak.
TIMES_WEAKER = 100


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Answer:
    """The answer for one target of a batch of ``N`` images: raw maps and where they come from. Its public face is Explanation.

    ``e["gradcam"]`` is a method's raw map, ``e[0]`` the explanation of one image, ``e[0, "gradcam"]`` its map; iterating gives
    the explanation of each image, and ``"gradcam" in e`` asks for a method.

    Attributes:
        maps: raw map of each method, signed, never scaled: ``(N, C, *spatial)``, or ``(N, *coarse)`` for Grad-CAM.
        images: the network's input, ``(N, C, *spatial)``.
        target: the class explained in each image, ``(N,)`` int64; None for a callable target.
        score: the score explained in each image, ``(N,)``.
        scores: all class scores ``(N, classes)``; ``score`` again where the outputs are no classes.
        coverage: which rectifiers ran, and which a rule reached.
        layer: Grad-CAM's target layer, given or chosen; None if no method read one.
        model: the network's name.
        labels: class names by index, if known.
        photos: each photo and what the network saw of it, if known (:meth:`with_photos`): what maps are drawn on.
        source: further provenance, as plain data: file, preprocessing, weights.
        activation: what makes probabilities of ``scores``: ``softmax``, ``sigmoid`` or ``none``.
        are_probabilities: True if ``scores`` are probabilities as they are, the network ending in a softmax or sigmoid; None if
            nothing tells what they are.
        versus: the class that the one explained is contrasted with in each image, ``(N,)``, if it is.
        unit: the unit of the network that is explained, in words, if it is one.
        scaling: how the maps are scaled when they are drawn (:meth:`scaled`).
        evidence: what speaks for or against each map, cheaply found; None if it was not asked for.
        remarks: why the map of each image is empty or weak, by method, in words; none where it is neither, or nothing is known.
        infos: the description of each map.
        strongest: the highest magnitude among each method's maps of the same result, other images and targets included, where
            there are such beside these.
    """

    maps: Mapping[str, Tensor]
    images: Tensor
    target: Tensor | None
    score: Tensor
    scores: Tensor
    coverage: Coverage
    layer: str | None
    model: str
    labels: Sequence[str] | None = None
    photos: Sequence[Photo] | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    activation: Resolved = "none"
    are_probabilities: bool | None = None
    versus: Tensor | None = None
    unit: str | None = None
    scaling: Scaling = OWN
    evidence: Evidence | None = None
    remarks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    strongest: Mapping[str, float] = field(default_factory=dict)
    infos: Mapping[str, MapInfo] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "maps", MappingProxyType(dict(self.maps)))

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        # a read-only view of a mapping cannot be pickled; the mapping can
        return type(self), (dict(self.maps), *(getattr(self, f.name) for f in fields(self)[1:]))

    # --- Parts of it ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, key: str | tuple[int, str]) -> Tensor: ...
    @overload
    def __getitem__(self, key: int | slice) -> Self: ...
    def __getitem__(self, key: str | int | slice | tuple[int, str]) -> Tensor | Self:
        """The raw map of a method, the explanation of one image or of some, or one image's map by a method."""
        if isinstance(key, str):
            if key in self.maps:
                return self.maps[key]
            raise InputError(f"no map {key!r} in this explanation; it holds {', '.join(self.maps)}")
        if isinstance(key, slice):
            return self._samples(key)
        sample, *method = key if isinstance(key, tuple) and key else (key,)
        if not hasattr(sample, "__index__") or len(method) > 1 or not all(isinstance(m, str) for m in method):
            raise InputError(f"index an explanation by image, method or both: e[0], e['gradcam'], e[0, 'gradcam']; got {key!r}")
        i = self.index(sample)
        return self[method[0]][i] if method else self._samples(slice(i, i + 1))

    def index(self, sample: int) -> int:
        """A sample from the front; the end of the samples is an IndexError, by which iteration over them stops."""
        if -len(self) <= sample < len(self):
            return operator.index(sample) % len(self)
        raise IndexError(f"there is no image {sample} in an explanation of {len(self)}")

    def _samples(self, some: slice) -> Self:
        if some.step is not None and some.step < 1:
            raise InputError(f"images are taken in their order; got a step of {some.step}")

        def of(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[some]

        return dataclasses.replace(
            self,
            maps={method: values[some] for method, values in self.maps.items()},
            images=self.images[some],
            target=of(self.target),
            score=self.score[some],
            scores=self.scores[some],
            photos=None if self.photos is None else self.photos[some],
            versus=of(self.versus),
            evidence=None if self.evidence is None else self.evidence[some],
            remarks={method: words[some] for method, words in self.remarks.items()},
            strongest=self.strongest or _strongest([self]),  # of all of them, not only of those taken
        )

    def __contains__(self, method: object) -> bool:
        return method in self.maps

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    def saliency(self, method: str) -> Tensor:
        """What is drawn: ``(N, *spatial)``, not negative, not scaled; Grad-CAM is upsampled to the input."""
        return saliency_at(self[method], self.infos[method].place, self.images.shape[2:])

    def scale(self, method: str) -> list[float]:
        """The value of each image's map that is drawn at full strength, as :attr:`scaling` says."""
        return [self.scaling.of(method, array(values)) for values in self.saliency(method).float()]

    def empty(self, method: str) -> list[bool]:
        """Say which images have an empty map: one that is zero everywhere, and shows nothing."""
        return [not shown for shown in self[method].flatten(1).any(1).tolist()]

    def weaker(self, method: str) -> list[float | None]:
        """How many times weaker each image's map is than the strongest beside it; None where not :data:`TIMES_WEAKER` times.

        Its highest magnitude is compared with that of the same method's maps of other images and targets in this result.
        """
        own = self[method].abs().flatten(1).amax(1).tolist()
        highest = max([self.strongest.get(method, 0.0), *own])
        return [highest / value if 0 < value * TIMES_WEAKER < highest else None for value in own]

    def to_numpy(self) -> dict[str, np.ndarray[Any, np.dtype[np.floating[Any]]]]:
        """The raw maps as arrays, channels last: ``(N, *spatial, C)``, or ``(N, *coarse)`` for Grad-CAM.

        The dtype is the map's, float32 for those that numpy lacks.
        """
        return {
            method: array(values.movedim(1, -1) if self.infos[method].place == "input" else values)
            for method, values in self.maps.items()
        }

    # --- Words ------------------------------------------------------------------------------------------------------------

    def name(self, index: int) -> str:
        """The name of a class, in one line: its label if labels are known, else its index."""
        return " ".join(self.labels[index].split()) if self.labels is not None and index < len(self.labels) else str(index)

    @property
    def quantity(self) -> Quantity:
        """The number that each class is shown with: a probability only where :attr:`activation` or the network gives one."""
        # the softmax of a single score is 1 whatever the score
        known = self.are_probabilities or self.activation == "sigmoid"
        known = known or (self.activation == "softmax" and self.scores.shape[-1] > 1)
        return "probability" if known and self.scores.ndim == 2 else "score"

    def probabilities(self, sample: int = 0) -> Tensor | None:
        """The class probabilities of one image, ``(classes,)``; None where there are only scores: see :attr:`quantity`."""
        return activated(self.scores[sample].float(), self.activation) if self.quantity == "probability" else None

    def top(self, sample: int = 0, count: int = 5) -> list[tuple[int, str, float]]:
        """The ``count`` highest classes of one image: index, name, and the probability or the score.

        Which of the two is :attr:`quantity`. Empty where the outputs are no classes.
        """
        if self.scores.ndim != 2:
            return []
        probabilities, scores = self.probabilities(sample), self.scores[sample].float()
        values = scores if probabilities is None else probabilities
        # by the scores, since probabilities near 1 may be the same float
        return [(i, self.name(i), float(values[i])) for i in scores.topk(min(count, len(scores))).indices.tolist()]

    def naming(self, option: str = "activation='{}'") -> str:
        """Say how to name the class scores, if a class is explained and nothing tells what they are; else nothing."""
        unnamed = self.target is not None and self.activation == "none" and self.are_probabilities is None
        return how_to_name(option, self.scores.shape[1]) if unnamed else ""

    @property
    def scores_are(self) -> str:
        """The kind of the scores, in words, and what makes probabilities of them."""
        if self.quantity == "score":
            return "scores, not probabilities"
        how = {"softmax": "the softmax of the scores", "sigmoid": "the sigmoid of each score", "none": "the scores themselves"}
        return f"probabilities, {how[self.activation]}"

    def title(self, sample: int = 0) -> str:
        """The class explained in one image, with its probability, in words; the score where there is no probability."""
        score, probabilities = f"score {significant(float(self.score[sample]))}", self.probabilities(sample)
        if self.target is None:
            return f"{self.unit}, {score}" if self.unit else score
        index = int(self.target[sample])
        if self.versus is not None:
            return f"{self._called(index)} rather than {self._called(int(self.versus[sample]))}, {score}"
        return f"{self._called(index)}, {score if probabilities is None else f'{float(probabilities[index]):.1%}'}"

    def _short(self, index: int) -> str:
        name = self.name(index).partition(",")[0]
        return f"class {index}" if name == str(index) else name if len(name) <= 20 else f"{name[:19]}…"

    def _called(self, index: int) -> str:
        name = self.name(index)
        return name if name == str(index) else f"{name} ({index})"

    def remark(self, method: str, sample: int = 0) -> str:
        """Say why one map is empty or weak; nothing where it is neither, or nothing is known."""
        return self.remarks[method][sample] if method in self.remarks else ""

    def doubt(self, method: str, sample: int = 0) -> str:
        """Say what speaks against one map, in a few words: that it is empty or weak, and what :attr:`evidence` has of it."""
        remark = self.remark(method, sample)
        if not self[method][sample].any():
            return f"empty (zero everywhere): {remark}" if remark else "empty (zero everywhere)"
        return "; ".join(part for part in (remark, self.weak_here(method, sample), self._likeness(method, sample)) if part)

    def weak_here(self, method: str, sample: int = 0) -> str:
        """Say that one map is far weaker than others of its method, where each is drawn at full strength all the same."""
        times = self.weaker(method)[sample] if self.scaling.origin == "own" else None
        if times is None:
            return ""
        return f"weak here: {float(f'{times:.3g}'):,.0f} times weaker than the strongest {self.infos[method].title} of these"

    def _likeness(self, method: str, sample: int) -> str:
        if self.evidence is None:
            return ""
        rival = "" if self.evidence.runner_up is None else f"{self._short(self.evidence.runner_up[sample])}'s"
        named = ((rival, self.evidence.classes), ("edges", self.evidence.edges))
        known = [(what, kind[method][sample]) for what, kind in named if method in kind]
        return ", ".join(f"{decimal(value)} like {what}" for what, value in known if not math.isnan(value))

    @property
    def layer_trouble(self) -> str:
        """The sentence that the layer chosen gives most images no Grad-CAM, and which one to name; empty where it does not."""
        return self.trouble_with_layer(self.without_gradcam())

    def without_gradcam(self) -> list[bool]:
        """Say which images have no Grad-CAM at the layer chosen; none where no layer was, or where nothing tells."""
        if "runner_up_layer" not in self.source:
            return []
        if "gradcam" in self:
            words = self.remarks.get("gradcam", ("",) * len(self))
            return [empty and said != NO_GRADIENT for empty, said in zip(self.empty("gradcam"), words, strict=True)]
        return [words.startswith(NO_GRADCAM) for words in self.remarks.get("guided_gradcam", ())]

    def trouble_with_layer(self, without: Sequence[bool], name: str = "layer={!r}") -> str:
        """Say that most of a run's images are ``without`` Grad-CAM, and ``name`` another layer; nothing where most have one."""
        if not any(without) or (not all(without) if len(without) < FEW else 2 * sum(without) <= len(without)):
            return ""
        another = self.source.get("runner_up_layer")
        such = f", such as {name.format(another)}" if another else ""
        these = f"{sum(without)} of {len(without)} Grad-CAMs are" if len(without) > 1 else "the Grad-CAM is"
        return f"{these} empty at layer {self.layer}, which was chosen; name another{such}"

    def __str__(self) -> str:
        titles = [self.title(i) for i in range(min(len(self), 4))] + (["…"] if len(self) > 4 else [])
        layer = f", layer {self.layer}" if self.layer else ""
        said = {m: self.doubt(m) if len(self) == 1 else self._of_several(m) for m in self.maps}
        maps = ", ".join(f"{m} ({words})" if words else m for m, words in said.items())
        chunk = f", explained {self.source['chunk']} at a time" if "chunk" in self.source else ""
        lines = [f"photo {i}: {note}" for i, photo in enumerate(self.photos or ()) for note in photo.notes]
        closing = "".join(f"\n{line}" for line in (*lines, self.naming(), self.layer_trouble) if line)
        return f"{self.model}{layer}{chunk}\n{'; '.join(titles)}\n{maps}: {self.reached}{closing}"

    __repr__ = __str__

    def _of_several(self, method: str) -> str:
        """Say for how many images the map is empty, or far weaker than others."""
        weak = sum(times is not None for times in self.weaker(method)) if self.scaling.origin == "own" else 0
        counts = {"empty": sum(self.empty(method)), f"over {TIMES_WEAKER} times weaker than the strongest": weak}
        return ", ".join(f"{words} for {count} of {len(self)} images" for words, count in counts.items() if count)

    @property
    def reached(self) -> str:
        """How many rectifiers a rule reached, in words."""
        return f"{self.coverage.guided} rectifiers guided, {self.coverage.unguided} not"


A = TypeVar("A", bound=Answer)


def compared(answers: Sequence[A], beside: Mapping[str, float] = MappingProxyType({})) -> list[A]:
    """The same answers, which know the highest magnitude of all their maps by each method, and of those ``beside`` them."""
    strongest = {method: max(value, beside.get(method, 0.0)) for method, value in _strongest(answers).items()}
    return [dataclasses.replace(answer, strongest=strongest) for answer in answers]


def _strongest(answers: Sequence[Answer]) -> dict[str, float]:
    """The highest magnitude of each method's maps, of those beside them too."""
    found: dict[str, float] = {}
    for answer in answers:
        for method, values in answer.maps.items():
            own = float(values.abs().max()) if values.numel() else 0.0
            found[method] = max(found.get(method, 0.0), answer.strongest.get(method, 0.0), own)
    return found
