"""What an explanation is: raw maps with the scores, the coverage and the provenance that belong to them, frozen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from safetensors.torch import save as save_tensors
from torch import Tensor

from relume import render
from relume.errors import InputError
from relume.report import write_folder

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["Coverage", "CoverageRow", "Explanation", "saliency", "sheet", "upsample"]

#: More rows than these are no picture any more.
MOST_ROWS = 16

#: What figures call the methods.
NAMES = {
    "gradient": "gradient",
    "deconvnet": "deconvnet",
    "guided_backprop": "guided backpropagation",
    "gradcam": "Grad-CAM",
    "guided_gradcam": "Guided Grad-CAM",
}


def upsample(heat: Tensor, size: Sequence[int]) -> Tensor:
    """``heat`` ``(N, *coarse)`` interpolated linearly in every axis to ``(N, *size)``, with ``align_corners=False``."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return F.interpolate(heat[:, None], tuple(size), mode=mode, align_corners=False)[:, 0]


def saliency(values: Tensor) -> Tensor:
    """``max_c |values|``: ``(N, C, *spatial)`` to ``(N, *spatial)``, not negative. Simonyan et al. 2013, section 3.1."""
    return values.abs().amax(dim=1)


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """``count`` nodes of one kind, ``guided`` or not, and ``why`` not."""

    kind: str
    count: int
    guided: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which rectifiers ran between score and input, and which of them a rule reaches. Prints as a small table."""

    rows: tuple[CoverageRow, ...]

    @property
    def guided(self) -> int:
        """How many rectifiers a rule reaches."""
        return sum(row.count for row in self.rows if row.guided)

    @property
    def unguided(self) -> int:
        """How many nodes may rectify and cannot be guided."""
        return sum(row.count for row in self.rows if not row.guided)

    @property
    def complete(self) -> bool:
        """Whether at least one rectifier ran and all that ran are guided."""
        return self.guided > 0 and self.unguided == 0

    def __str__(self) -> str:
        if not self.rows:
            return "no rectifier ran"
        width = max(len("rectifier"), *(len(row.kind) for row in self.rows))
        lines = [f"{'rectifier':<{width}}    ran  guided"]
        lines += [f"{r.kind:<{width}}  {r.count:>5}  {r.count * r.guided:>6}  {r.why}".rstrip() for r in self.rows]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        rows = [{"kind": r.kind, "ran": r.count, "guided": r.guided, "why": r.why} for r in self.rows]
        return {"guided": self.guided, "unguided": self.unguided, "rectifiers": rows}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Explanation:
    """The answer for one target of a batch of ``N`` images: raw maps and where they come from.

    Attributes:
        maps: raw map of each method, signed, never scaled: ``(N, C, *spatial)``, or ``(N, *coarse)`` for Grad-CAM.
        images: the network's input, ``(N, C, *spatial)``.
        target: the class explained in each image, ``(N,)`` int64; None for a callable target.
        score: the score explained in each image, ``(N,)``.
        scores: all class scores ``(N, classes)``; ``score`` again where the outputs are no classes.
        coverage: which rectifiers ran, and which a rule reaches.
        layer: Grad-CAM's target layer, given or chosen; None if no method read one.
        model: the network's name.
        labels: class names by index, if known.
        photos: what the network saw of each picture, at its input's resolution, if known; drawn beneath the maps.
        source: further provenance, as plain data: file, preprocessing, weights.
        multilabel: each class is a yes or no of its own, so that its probability is the sigmoid of its score.
        versus: the class that the one explained is contrasted with in each image, ``(N,)``, if it is.
        unit: the unit of the network that is explained, in words, if it is one.
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
    photos: Sequence[Image] | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    multilabel: bool = False
    versus: Tensor | None = None
    unit: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "maps", MappingProxyType(dict(self.maps)))

    def __reduce__(self) -> tuple[type[Explanation], tuple[Any, ...]]:
        # a read-only view of a mapping cannot be pickled; the mapping can
        return Explanation, (dict(self.maps), *(getattr(self, f.name) for f in fields(self)[1:]))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, method: str) -> Tensor:
        """The raw map of ``method``."""
        try:
            return self.maps[method]
        except KeyError:
            raise InputError(f"no map {method!r} in this explanation; it holds {', '.join(self.maps)}") from None

    def __contains__(self, method: object) -> bool:
        return method in self.maps

    def __iter__(self) -> Iterator[str]:
        return iter(self.maps)

    def saliency(self, method: str) -> Tensor:
        """What is drawn: ``(N, *spatial)``, not negative, not scaled; Grad-CAM is upsampled to the input."""
        values = self[method]
        if values.ndim == self.images.ndim:
            return saliency(values)
        return upsample(values, self.images.shape[2:])

    def name(self, index: int) -> str:
        """The name of a class: its label if labels are known, else its index."""
        return self.labels[index] if self.labels is not None and index < len(self.labels) else str(index)

    def probabilities(self, sample: int = 0) -> Tensor | None:
        """The class probabilities of one image: its scores if they already are probabilities, else their softmax.

        Of a multilabel network, the sigmoid of each score. None if the outputs are no classes, or a single one, of which
        softmax would say 1 whatever the score.
        """
        if self.scores.ndim != 2 or (self.scores.shape[1] < 2 and not self.multilabel):
            return None
        scores = self.scores[sample].float()
        if self.multilabel:
            return scores.sigmoid()
        are_already = bool((scores >= 0).all()) and abs(float(scores.sum()) - 1) < 1e-3
        return scores if are_already else scores.softmax(0)

    def top(self, sample: int = 0, count: int = 5) -> list[tuple[int, str, float]]:
        """The ``count`` highest classes of one image: index, name, probability. Empty where there are no probabilities."""
        probabilities = self.probabilities(sample)
        if probabilities is None:
            return []
        values, indices = probabilities.topk(min(count, len(probabilities)))
        return [(int(i), self.name(int(i)), float(p)) for p, i in zip(values, indices, strict=True)]

    # --- Pictures and files ----------------------------------------------------------------------------------------------

    def scale(self, method: str, *, shared: bool = False) -> list[float]:
        """The value of each image's map that is drawn at full strength: its 99.5th percentile, or the batch's if ``shared``."""
        drawn = self.saliency(method).float().cpu().numpy()
        scales = [render.scale_of(values) for values in drawn]
        return [max(scales)] * len(scales) if shared else scales

    def photo(self, sample: int = 0) -> Image:
        """What the network saw of one picture; without the picture, its input stretched to the range of a display."""
        self._check_drawable()
        if self.photos is not None:
            return self.photos[sample]
        return render.stretched(self.images[sample].float().cpu().numpy())

    def picture(self, method: str, sample: int = 0, *, scale: float | None = None) -> Image:
        """One map as a picture: a signed map as colour about mid-grey, a heat map over the photo.

        ``scale`` is the value drawn at full strength, :meth:`scale` of the method if None.
        """
        self._check_drawable()
        scale = self.scale(method)[sample] if scale is None else scale
        values = self[method]
        if values.ndim == self.images.ndim:
            return render.signed(values[sample].float().cpu().numpy(), scale)
        return render.heat_over(self.saliency(method)[sample].float().cpu().numpy(), scale, self.photo(sample))

    def figure(self, *, shared: bool = False) -> Figure:
        """A figure: a row for each image, with the photo and every map; ``shared`` draws the images on one scale."""
        return sheet([self], shared=shared)

    def title(self, sample: int = 0) -> str:
        """The class explained in one image, with its probability, in words; the score where there is no probability."""
        score, probabilities = f"score {float(self.score[sample]):.3g}", self.probabilities(sample)
        if self.target is None:
            return f"{self.unit}, {score}" if self.unit else score
        index = int(self.target[sample])
        if self.versus is not None:
            return f"{self._called(index)} rather than {self._called(int(self.versus[sample]))}, {score}"
        return f"{self._called(index)}, {score if probabilities is None else f'{float(probabilities[index]):.1%}'}"

    def _called(self, index: int) -> str:
        name = self.name(index)
        return name if name == str(index) else f"{name} ({index})"

    def as_dict(self) -> dict[str, Any]:
        """Everything but the maps, as plain data for JSON."""
        samples = []
        scales = {m: self.scale(m) for m in self.maps}
        for i in range(len(self)):
            index = None if self.target is None else int(self.target[i])
            samples.append(
                {
                    "target": index,
                    "target_name": None if index is None else self.name(index),
                    "versus": None if self.versus is None else int(self.versus[i]),
                    "unit": self.unit,
                    "score": float(self.score[i]),
                    "top": [{"class": c, "name": n, "probability": p} for c, n, p in self.top(i)],
                    "scale": {m: scales[m][i] for m in self.maps},
                }
            )
        return {
            "samples": samples,
            "methods": list(self.maps),
            "layer": self.layer,
            "model": self.model,
            "multilabel": self.multilabel,
            "coverage": self.coverage.as_dict(),
            "input_shape": list(self.images.shape),
            "source": dict(self.source),
            "versions": {"relume": version("relume"), "torch": torch.__version__},
        }

    def files(self, *, figure: bool = True) -> dict[str, bytes]:
        """The files that :meth:`save` writes, by name: a PNG of each map and image, the figure, the raw maps, the facts."""
        files = {}
        if self._drawable:
            for method in self.maps:
                for i, scale in enumerate(self.scale(method)):
                    name = f"{method}.png" if len(self) == 1 else f"{method}.{i}.png"
                    files[name] = render.png(self.picture(method, i, scale=scale))
            if figure:
                files["figure.png"] = render.figure_png(self.figure())
        files["maps.safetensors"] = save_tensors({m: v.contiguous().cpu() for m, v in self.maps.items()})
        files["explanation.json"] = (json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n").encode()
        return files

    def save(self, directory: str | Path) -> Path:
        """Write :meth:`files` into ``directory``, all or nothing, and return it; pictures of an earlier save there go.

        Raises:
            OutputError: the directory cannot be written to; nothing was left behind.
        """
        directory, files = Path(directory), self.files()
        earlier = {p.name for m in NAMES for p in (*directory.glob(f"{m}.png"), *directory.glob(f"{m}.[0-9]*.png"))}
        return write_folder(directory, files, stale=earlier - files.keys())

    @property
    def _drawable(self) -> bool:
        return self.images.ndim == 4

    def _check_drawable(self) -> None:
        if not self._drawable:
            raise InputError(
                f"only two-dimensional images are drawn, and this input has shape {tuple(self.images.shape)}; "
                "plot e[method] yourself"
            )

    def __str__(self) -> str:
        titles = [self.title(i) for i in range(min(len(self), 4))] + (["…"] if len(self) > 4 else [])
        layer = f", layer {self.layer}" if self.layer else ""
        reached = f"{self.coverage.guided} rectifiers guided, {self.coverage.unguided} not"
        return f"{self.model}{layer}\n{'; '.join(titles)}\n{', '.join(self.maps)}: {reached}"

    __repr__ = __str__

    def _repr_png_(self) -> bytes | None:
        return render.figure_png(self.figure()) if self._drawable else None


def sheet(explanations: Sequence[Explanation], *, shared: bool = False) -> Figure:
    """A figure of explanations by the same methods, such as several targets of one photo: a row for each image of each.

    Every map is drawn on its own scale, or those of one method in one explanation on one if ``shared``; the caption says which.
    At most :data:`MOST_ROWS` rows are drawn; the caption says if there are more.
    """
    rows: list[tuple[str, dict[str, Image]]] = []
    for e in explanations:
        scales = {m: e.scale(m, shared=shared) for m in e.maps}
        for i in range(min(len(e), MOST_ROWS - len(rows))):
            pictures = {NAMES.get(m, m): e.picture(m, i, scale=scales[m][i]) for m in e.maps}
            blank = [NAMES.get(m, m) for m in e.maps if scales[m][i] == 0]
            note = f"  ·  zero everywhere: {', '.join(blank)}" if blank else ""
            rows.append((e.title(i) + note, {"input": e.photo(i), **pictures}))
    first = explanations[0]
    parts = [first.model, f"layer {first.layer}" if first.layer else "", f"{first.coverage.guided} rectifiers guided"]
    parts.append(f"full strength at the 99.5th percentile, {'shared' if shared else 'each map its own'}")
    total = sum(len(e) for e in explanations)
    parts.append(f"the first {len(rows)} of {total} rows" if total > len(rows) else "")
    return render.figure(rows, "  ·  ".join(part for part in parts if part))
