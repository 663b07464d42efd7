"""The result of an explanation: raw maps, scores, coverage and provenance, and what is drawn, said and saved of them."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, overload

import numpy as np
from torch import Tensor

from relume.engine.coverage import Coverage
from relume.errors import InputError
from relume.explanation import storage
from relume.explanation.belief import LEVELS, PREDICTION, UNCALIBRATED, Verdict, nothing
from relume.explanation.drawing import Kinds, drawn_map, framed, ground_at, is_drawn, kind_for
from relume.explanation.quick_checks import Evidence
from relume.maps import MapInfo, array, saliency_at
from relume.pages.folder import recover, write_folder
from relume.pictures.ground import Ground, draw
from relume.pictures.kinds import Kind
from relume.pictures.photo import Photo
from relume.pictures.preprocessing import IMAGENET, Preprocessing
from relume.pictures.recording import Recording
from relume.pictures.scale import OWN, PERCENTILE, Array, Scaling
from relume.targets.activation import Quantity, Resolved, activated, how_to_name
from relume.text import significant

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["Explanation", "Kinds", "Scale", "compared"]

#: A map so many times weaker than the strongest of the same method's beside it is called weak.
TIMES_WEAKER = 100

Scale: TypeAlias = float | Literal["own", "shared"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Explanation:
    """The explanation of one target in a batch of ``N`` images: raw maps, and where they come from.

    ``e["gradcam"]`` is a raw map, ``e[0]`` the explanation of one image, ``e[0, "gradcam"]`` its map; iterating gives the
    explanation of each image, and ``"gradcam" in e`` tells whether there is such a map. In a notebook it shows itself.

    Attributes:
        maps: the raw map of each method, never scaled: ``(N, C, *spatial)``, or ``(N, *coarse)`` for one of a layer.
        infos: the description of each map: title, place, sign.
        images: the network's input, ``(N, C, *spatial)``.
        target: the class explained in each image, ``(N,)`` int64; None if no class is explained.
        score: the score explained in each image, ``(N,)``.
        scores: all class scores ``(N, classes)``; ``score`` again where the outputs are no classes.
        coverage: the rectifiers that ran, and those that a rule reached.
        layer: Grad-CAM's target layer, given or chosen; None if no method read one.
        model: the network's name.
        labels: class names by index, if known.
        photos: each photo, or each recording, and what the network saw of it, if known (:meth:`with_photos`): what maps are
            drawn on.
        provenance: where the result comes from, as plain data: file, preprocessing, weights.
        activation: what makes probabilities of ``scores``: ``softmax``, ``sigmoid`` or ``none``.
        are_probabilities: True if ``scores`` are probabilities as they are, the network ending in a softmax or sigmoid; None if
            nothing tells what they are.
        versus: the class that the one explained is contrasted with in each image, ``(N,)``, if it is.
        description: what is explained in each image, in words, if it is no plain class and no contrast of two.
        scaling: how the maps are scaled when they are drawn (:meth:`scaled`).
        evidence: the cheap checks of each map; None if there were none.
        remarks: why the map of each image is empty or weak, by key, in words; empty words where it is neither.
        strongest: the highest magnitude among each method's maps of the same result, other images and targets included, where
            there are such beside these.
        layer_choice: why the layer was chosen; None if it was given.
        runner_up_layer: the layer to try if the chosen one gives no Grad-CAM, if one is known.
        batch_size: how many images ran at once; None if all did.
        belief: the verdict on each map by key that is the same for all images: see :meth:`verdict`.

    Example:
        >>> import relume, torch
        >>> e = relume.explain(relume.open_model("demo").model, torch.rand(2, 3, 96, 96), methods=["gradient", "gradcam"])
        >>> len(e), list(e.maps), e[0, "gradient"].shape
        (2, ['gradient', 'gradcam'], torch.Size([3, 96, 96]))
        >>> [len(one) for one in e]
        [1, 1]
    """

    maps: Mapping[str, Tensor]
    infos: Mapping[str, MapInfo]
    images: Tensor
    target: Tensor | None
    score: Tensor
    scores: Tensor
    coverage: Coverage
    layer: str | None
    model: str
    labels: Sequence[str] | None = None
    photos: Sequence[Photo | Recording] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    activation: Resolved = "none"
    are_probabilities: bool | None = None
    versus: Tensor | None = None
    description: tuple[str, ...] | None = None
    scaling: Scaling = OWN
    evidence: Evidence | None = None
    remarks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    strongest: Mapping[str, float] = field(default_factory=dict)
    layer_choice: str | None = None
    runner_up_layer: str | None = None
    batch_size: int | None = None
    belief: Mapping[str, Verdict] = field(default_factory=dict)

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
        """Return the raw map of a method, the explanation of one image or of some, or one image's map by a method."""
        if isinstance(key, str):
            if key in self.maps:
                return self.maps[key]
            raise InputError(f"no map {key!r} in this explanation; it holds {', '.join(self.maps)}")
        if isinstance(key, slice):
            return self._samples(key)
        sample, *method = key if isinstance(key, tuple) and key else (key,)
        if not hasattr(sample, "__index__") or len(method) > 1 or not all(isinstance(m, str) for m in method):
            raise InputError(f"index an explanation by image, method or both: e[0], e['gradcam'], e[0, 'gradcam']; got {key!r}")
        i = self._index(sample)
        return self[method[0]][i] if method else self._samples(slice(i, i + 1))

    def _index(self, sample: int) -> int:
        """Count a sample from the front; the end of the samples is an IndexError, by which iteration over them stops."""
        if -len(self) <= sample < len(self):
            return operator.index(sample) % len(self)
        raise IndexError(f"there is no image {sample} in an explanation of {len(self)}")

    def _samples(self, some: slice) -> Self:
        if some.step is not None and some.step < 1:
            raise InputError(f"images are taken in their order; got a step of {some.step}")
        cut: dict[str, Any] = {
            name: None if (values := getattr(self, name)) is None else values[some]
            for name in ("images", "target", "score", "scores", "photos", "versus", "evidence", "description")
        }
        return dataclasses.replace(
            self,
            **cut,
            maps={key: values[some] for key, values in self.maps.items()},
            remarks={key: words[some] for key, words in self.remarks.items()},
            strongest=self.strongest or _strongest([self]),  # of all of them, not only of those taken
        )

    def __contains__(self, method: object) -> bool:
        return method in self.maps

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    # --- Values -----------------------------------------------------------------------------------------------------------

    def saliency(self, method: str) -> Tensor:
        """Return what is drawn: ``(N, *spatial)``, not negative, not scaled; the map of a layer is upsampled to the input.

        Example:
            >>> import relume, torch
            >>> e = relume.explain(relume.open_model("demo").model, torch.rand(2, 3, 96, 96), methods=["gradcam"])
            >>> e["gradcam"].shape, e.saliency("gradcam").shape
            (torch.Size([2, 12, 12]), torch.Size([2, 96, 96]))
        """
        values = self[method]
        return saliency_at(values, self.infos[method].place, self.images.shape[2:])

    def scale(self, method: str) -> list[float]:
        """Return the value of each image's map that is drawn at full strength, as :attr:`scaling` says.

        Example:
            >>> import relume, torch
            >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
            >>> e = relume.explain(network, torch.rand(2, 3, 4, 4), methods=["gradient"])
            >>> e.scaled(0.5).scale("gradient")
            [0.5, 0.5]
        """
        return [self.scaling.of(method, array(values)) for values in self.saliency(method).float()]

    def empty(self, method: str) -> list[bool]:
        """Tell which images have an empty map: one that is zero everywhere, and shows nothing.

        Example:
            >>> import relume, torch
            >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
            >>> e = relume.explain(network, torch.rand(1, 3, 4, 4), methods=["gradient"])
            >>> e.empty("gradient")
            [False]
        """
        return [not shown for shown in self[method].flatten(1).any(1).tolist()]

    def weaker(self, method: str) -> list[float | None]:
        """Return how many times weaker each image's map is than the strongest; None if less than :data:`TIMES_WEAKER` times.

        Its highest magnitude is compared with that of the same method's maps of other images and targets in this result.
        """
        own = self[method].abs().flatten(1).amax(1).tolist()
        highest = max([self.strongest.get(method, 0.0), *own])
        return [highest / value if 0 < value * TIMES_WEAKER < highest else None for value in own]

    def to_numpy(self) -> dict[str, np.ndarray[Any, np.dtype[np.floating[Any]]]]:
        """Return the raw maps as arrays, channels last: ``(N, *spatial, C)``, or ``(N, *coarse)`` for the map of a layer.

        The dtype is the map's, float32 for those that NumPy lacks.

        Example:
            >>> import relume, torch
            >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
            >>> relume.explain(network, torch.rand(2, 3, 4, 4), methods=["gradient"]).to_numpy()["gradient"].shape
            (2, 4, 4, 3)
        """
        of_input = {key for key, info in self.infos.items() if info.place == "input"}
        return {key: array(values.movedim(1, -1) if key in of_input else values) for key, values in self.maps.items()}

    # --- Words ------------------------------------------------------------------------------------------------------------

    def name(self, index: int) -> str:
        """Return the name of a class, in one line: its label if labels are known, else its index.

        Example:
            >>> import relume
            >>> from relume.demo import draw_scene
            >>> relume.open_model("demo").explain(draw_scene(0).picture, methods=["gradient"]).name(4)
            'cat'
        """
        return " ".join(self.labels[index].split()) if self.labels is not None and index < len(self.labels) else str(index)

    @property
    def quantity(self) -> Quantity:
        """The number that each class is shown with: a probability only where :attr:`activation` or the network gives one."""
        # the softmax of a single score is 1 whatever the score
        known = self.are_probabilities or self.activation == "sigmoid"
        known = known or (self.activation == "softmax" and self.scores.shape[-1] > 1)
        return "probability" if known and self.scores.ndim == 2 else "score"

    def probabilities(self, sample: int = 0) -> Tensor | None:
        """Return the class probabilities of one image, ``(classes,)``; None where there are only scores: see :attr:`quantity`.

        Example:
            >>> import relume, torch
            >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
            >>> e = relume.explain(network, torch.rand(1, 3, 4, 4), methods=["gradient"], activation="softmax")
            >>> round(float(e.probabilities().sum()), 3)
            1.0
        """
        return activated(self.scores[sample].float(), self.activation) if self.quantity == "probability" else None

    def top(self, sample: int = 0, count: int = 5) -> list[tuple[int, str, float]]:
        """Return the ``count`` highest classes of one image: index, name, and the probability or the score.

        :attr:`quantity` says which of the two. Empty where the outputs are no classes.

        Example:
            >>> import relume
            >>> from relume.demo import draw_scene
            >>> e = relume.open_model("demo").explain(draw_scene(7, ["cat", "dog"]).picture)
            >>> [name for _, name, _ in e.top(count=2)]
            ['dog', 'cat']
        """
        if self.scores.ndim != 2:
            return []
        probabilities, scores = self.probabilities(sample), self.scores[sample].float()
        values = scores if probabilities is None else probabilities
        # by the scores, since probabilities near 1 may be the same float
        return [(i, self.name(i), float(values[i])) for i in scores.topk(min(count, len(scores))).indices.tolist()]

    def naming(self, option: str = "activation='{}'") -> str:
        """Say how to name the class scores, if a class is explained and nothing tells what they are; else nothing."""
        classes = self.target is not None and self.scores.ndim == 2
        unnamed = classes and self.activation == "none" and self.are_probabilities is None
        return how_to_name(option, self.scores.shape[1]) if unnamed else ""

    @property
    def scores_are(self) -> str:
        """The kind of the scores, in words, and what makes probabilities of them."""
        if self.quantity == "score":
            return "scores, not probabilities"
        how = {"softmax": "the softmax of the scores", "sigmoid": "the sigmoid of each score", "none": "the scores themselves"}
        return f"probabilities, {how[self.activation]}"

    def title(self, sample: int = 0) -> str:
        """Name the class explained in one image, with its probability; with its score where there is no probability.

        Example:
            >>> import relume
            >>> from relume.demo import draw_scene
            >>> e = relume.open_model("demo").explain(draw_scene(7, ["cat", "dog"]).picture, "cat")
            >>> e.title().partition(",")[0]
            'cat (4)'
        """
        score, probabilities = f"score {significant(float(self.score[sample]))}", self.probabilities(sample)
        if self.description is not None or self.target is None:
            return f"{self.description[sample]}, {score}" if self.description else score
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
        """Say what a reader must know of one map: that it is empty or weak, and what :attr:`evidence` has of it.

        Example:
            >>> import relume
            >>> from relume.demo import draw_scene
            >>> e = relume.open_model("demo").explain(draw_scene(7, ["cat", "dog"]).picture, "cat", evidence="full")
            >>> e.doubt("guided_backprop").partition(" (")[0]
            'almost the same as the map for dog'
        """
        remark = self.remark(method, sample)
        if not self[method][sample].any():
            return f"empty (zero everywhere): {remark}" if remark else "empty (zero everywhere)"
        similar = ""
        if self.evidence is not None:
            rival = "" if self.evidence.runner_up is None else self._short(self.evidence.runner_up[sample])
            similar = self.evidence.sentence(method, sample, rival)
        return "; ".join(part for part in (remark, self.weak_here(method, sample), similar) if part)

    def verdict(self, method: str, sample: int = 0) -> Verdict:
        """Judge one map: a veto if it is empty or constant; else what the calibration of this network says of the method.

        Example:
            >>> import relume
            >>> from relume.demo import draw_scene
            >>> relume.open_model("demo").explain(draw_scene(7, ["cat", "dog"]).picture, "cat").verdict("gradcam").level
            'uncalibrated'
        """
        values = self[method][sample]
        if not values.any() or bool((values == values.flatten()[0]).all()):
            return nothing(zero=not values.any(), remark=self.remark(method, sample))
        return self.belief.get(method, UNCALIBRATED)

    @property
    def beliefs(self) -> list[str]:
        """The verdicts that are the same for all images, a sentence each, and what a probability is about."""
        verdicts = {key: self.belief.get(key, UNCALIBRATED) for key in self.maps}
        sentences = []
        for verdict in dict.fromkeys(verdicts.values()):
            titles = ", ".join(self.infos[key].title for key in verdicts if verdicts[key] == verdict)
            sentences.append(f"{titles}: {LEVELS[verdict.level]}. {verdict}" if verdict != UNCALIBRATED else str(verdict))
        return sentences + [f"{PREDICTION[0].upper()}{PREDICTION[1:]}."] * (self.quantity == "probability")

    def weak_here(self, method: str, sample: int = 0) -> str:
        """Say that one map is far weaker than others of its method, where each is drawn at full strength all the same."""
        times = self.weaker(method)[sample] if self.scaling.origin == "own" else None
        if times is None:
            return ""
        return f"weak here: {float(f'{times:.3g}'):,.0f} times weaker than the strongest {self.infos[method].title} of these"

    @property
    def layer_trouble(self) -> str:
        """The sentence that most heat maps of the layer chosen are empty, and which layer to name; empty where they are not."""
        from relume.explanation.layer_trouble import trouble_with_layer, without_heat

        return trouble_with_layer(self, without_heat(self))

    def __str__(self) -> str:
        from relume.explanation.summary import summary

        return summary(self)

    __repr__ = __str__

    @property
    def reached(self) -> str:
        """The number of rectifiers that a rule reached, in words."""
        return f"{self.coverage.guided} rectifiers guided, {self.coverage.unguided} not"

    # --- Pictures ---------------------------------------------------------------------------------------------------------

    def with_photos(
        self, photos: Sequence[str | Path | Image | Photo | Recording], preprocessing: Preprocessing = IMAGENET
    ) -> Self:
        """Return the same explanation, drawn on ``photos`` at their own resolution: a file, picture or photo for each image.

        Signals, volumes and video are drawn on recordings, one for each image: see :class:`relume.pictures.Recording`.
        ``preprocessing`` is what made the images of photos: where it cropped, the rest is dimmed. A recording knows its box.

        Raises:
            ImageError: a photo cannot be read.
            InputError: there are more or fewer photos than images, an image is not what becomes of its photo, or a recording
                has other spatial axes than the images.

        Example:
            >>> import relume
            >>> from relume.demo import PREPROCESSING, draw_scene, load_network
            >>> photo = draw_scene(7, ["cat", "dog"]).picture
            >>> e = relume.explain(load_network(), PREPROCESSING.tensor(photo)[None], methods=["gradient"])
            >>> e.with_photos([photo], PREPROCESSING).photo().size == photo.size
            True
        """
        return dataclasses.replace(self, photos=framed(self, photos, preprocessing))

    def scaled(self, scale: Scale | Mapping[str, float] = "own", *, percentile: float = PERCENTILE) -> Self:
        """Return the same explanation, drawn at another scale.

        Args:
            scale: ``own``: the ``percentile`` of each map is drawn at full strength; ``shared``: the highest of the batch, for
                each method; or the value itself, for all methods or by method.
            percentile: of a map's magnitudes, from above 0 to 100.

        Raises:
            InputError: another word, a value not above zero, a method without a value.

        Example:
            >>> import relume, torch
            >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
            >>> e = relume.explain(network, torch.rand(2, 3, 4, 4), methods=["gradient"]).scaled("shared")
            >>> len(set(e.scale("gradient")))
            1
        """
        from relume.explanation.scales import scaling_of

        return dataclasses.replace(self, scaling=scaling_of([self], scale, percentile))

    def photo(self, sample: int = 0) -> Image:
        """Draw the photo or the recording alone, dimmed where the network never looked; its input if there is neither.

        An input is stretched to the range of a display.
        """
        return draw(self.ground(sample))

    def ground(self, sample: int = 0) -> Ground:
        """Return what the maps of one image are drawn on: its photo or recording with its box; its input if there is neither.

        An input ``(C, L)`` is taken for a signal, and ``(C, D, H, W)`` for a volume. Three channels of ``(C, H, W)`` are
        colours; of any other number the first is drawn in grey.

        Raises:
            InputError: an input without spatial axes, or with more than three.
        """
        return ground_at(self, self._index(sample))

    def picture(self, method: str, sample: int = 0, *, kind: str | None = None, size: int | None = None) -> Image:
        """Draw one map, on its photo where the kind shows one, where the network looked.

        Args:
            method: which map.
            sample: which image.
            kind: one of :data:`relume.pictures.kinds.KINDS`; if None, what suits the map.
            size: the longest side in pixels, the photo's own if None.

        Raises:
            InputError: an unknown method or kind, or images without one to three spatial axes.

        Example:
            >>> import relume, torch
            >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
            >>> relume.explain(network, torch.rand(2, 3, 4, 4), methods=["gradient"]).picture("gradient", kind="over").size
            (4, 4)
        """
        i = self._index(sample)
        return draw(self.ground(i), drawn_map(self[i], method, kind), size=size)

    def overlay(self, method: str, sample: int = 0, *, kind: str = "over") -> Image:
        """Draw one map over its photo, at the photo's own resolution."""
        return self.picture(method, sample, kind=kind)

    def kind(self, method: str, kind: Kinds = None) -> Kind:
        """Return the kind of picture that is drawn of a map: the one given, or what suits the map.

        Example:
            >>> import relume, torch
            >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
            >>> e = relume.explain(network, torch.rand(1, 3, 4, 4), methods=["gradient"])
            >>> e.kind("gradient").key
            'colour'
        """
        return kind_for(self, method, kind)

    def drawn(self, method: str) -> Array:
        """Return the first image's map as it is drawn: ``(C, *spatial)`` signed, or ``(*spatial)``, at input resolution."""
        return drawn_map(self, method).values

    def figure(self, *, kind: Kinds = None, scale: Scale | None = None, columns: int | None = None, dpi: float = 150) -> Figure:
        """Draw a figure for a paper: a row for each image, with the photo and every map, class, score, layer and scale.

        Args:
            kind: the kind of picture, for all methods or by method; what suits each map if None.
            scale: as for :meth:`scaled`; what :attr:`scaling` says if None.
            columns: pictures side by side; all of a row, up to seven, if None.
            dpi: dots per inch of what is not text; text stays text in PDF and SVG.

        Example:
            >>> import relume, torch
            >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
            >>> e = relume.explain(network, torch.rand(2, 3, 4, 4), methods=["gradient"])
            >>> e.figure().savefig("/dev/null", format="pdf")
        """
        from relume.explanation.sheet import sheet

        return sheet([self if scale is None else self.scaled(scale)], kind=kind, columns=columns, dpi=dpi)

    def _repr_html_(self) -> str | None:
        from relume.explanation.sheet import notebook

        return notebook([self]) if is_drawn(self) else None

    # --- Files ------------------------------------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the tensors, as plain data for JSON.

        Example:
            >>> import relume, torch
            >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
            >>> e = relume.explain(network, torch.rand(1, 3, 4, 4), methods=["gradient"])
            >>> e.as_dict()["maps"]["gradient"]["place"]
            'input'
        """
        return storage.record(self)

    def files(self, *, kind: Kinds = None, size: int | None = None, without: Iterable[str] = ()) -> dict[str, bytes]:
        """Return the files that :meth:`save` writes, by name, those of some writers left out.

        Example:
            >>> import relume, torch
            >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
            >>> sorted(relume.explain(network, torch.rand(1, 3, 4, 4), methods=["gradient"]).files(without=["figure"]))
            ['explanation.json', 'gradient.png', 'maps.safetensors', 'tensors.safetensors']
        """
        return storage.files(self, storage.SaveOptions(kind, size), without=without)

    def save(self, directory: str | Path, *, kind: Kinds = None, size: int | None = None) -> Path:
        """Write pictures, a figure, raw maps and a record into ``directory``, all or nothing, and return it.

        ``METHOD.png`` for each method (``METHOD.0.png`` and so on for each image of several), at the photo's resolution or with
        a longest side of ``size``; ``figure.png``; ``photo.*``, the photo's file as it was; ``maps.safetensors``, the raw maps;
        ``tensors.safetensors``, input, scores and target; ``explanation.json``. What an earlier save wrote there goes. Each
        format is an entry of :data:`relume.explanation.storage.WRITERS`, to which others can be added.

        Raises:
            OutputError: the directory cannot be written to; nothing was left behind.

        Example:
            >>> import relume, tempfile, torch
            >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
            >>> e = relume.explain(network, torch.rand(1, 3, 4, 4), methods=["gradient"])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     again = relume.Explanation.load(e.save(folder))
            >>> torch.equal(again["gradient"], e["gradient"])
            True
        """
        directory, files = Path(directory), self.files(kind=kind, size=size)
        recover(directory)  # before what is there is looked at
        return write_folder(directory, files, stale=storage.written(directory) - files.keys())

    @classmethod
    def load(cls, directory: str | Path) -> Self:
        """Load what :meth:`save` wrote: the same maps, scores, words, photos and pictures.

        Raises:
            InputError: something is missing there, or is not what :meth:`save` writes.
        """
        return cls(**storage.load(Path(directory)))


def compared(explanations: Sequence[Explanation], beside: Mapping[str, float] = MappingProxyType({})) -> list[Explanation]:
    """Tell explanations the highest magnitude of all their maps by each method, and of those ``beside`` them."""
    strongest = {method: max(value, beside.get(method, 0.0)) for method, value in _strongest(explanations).items()}
    return [dataclasses.replace(e, strongest=strongest) for e in explanations]


def _strongest(explanations: Sequence[Explanation]) -> dict[str, float]:
    """Find the highest magnitude of each method's maps, of those beside them too."""
    strongest: dict[str, float] = {}
    for e in explanations:
        for key, values in e.maps.items():
            own = float(values.abs().max()) if values.numel() else 0.0
            strongest[key] = max(strongest.get(key, 0.0), e.strongest.get(key, 0.0), own)
    return strongest
