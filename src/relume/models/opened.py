"""An opened network: with its preprocessing and its class names, it explains photos rather than tensors."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, Unpack

import relume  # the functions of rooms above this one: the package loads each when it is first used
from relume.errors import ImageError, ModelError, TargetError
from relume.methods.names import DEFAULT_METHODS
from relume.pictures.preprocessing import AS_RECORDED, Preprocessing

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from torch import nn

    from relume.acceleration.prepared import Preparing
    from relume.engine.inputs import Output
    from relume.engine.reading import LayerLike
    from relume.explanation.calibration import Calibration
    from relume.explanation.comparison import Comparison
    from relume.explanation.request import Options
    from relume.explanation.result import Explanation
    from relume.methods.wrapper import MethodLike
    from relume.pictures.photo import Photo
    from relume.pictures.recording import Recording
    from relume.targets import TargetLike
    from relume.targets.activation import Activation

    Picture: TypeAlias = str | Path | Image | Photo | Recording

__all__ = ["BATCH_SIZE", "Opened"]

P = TypeVar("P", bound="Picture")

#: The note where a source knows nothing of preprocessing.
ASSUMED = (
    "nothing in it says how pictures are prepared, so ImageNet's way is taken where no option says another: resize 256, crop "
    "224, its mean and std; recordings go in as they are"
)

#: The number of photos that run at once where nothing else is said.
BATCH_SIZE = 8


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A network ready to run, with how it wants its pictures and the names of its classes.

    Attributes:
        name: the name that results call it by: the spec it was opened by.
        model: the network, in evaluation mode.
        preprocessing: makes the network's input of a picture, and of a video's frames.
        labels: a name for each class, where the source has them.
        activation: what its scores are, as for :func:`relume.explain`; ``auto`` where the source does not know.
        notes: what the user must know of how it was opened: where weights were found, which code was run.
        weights: the file whose weights were loaded in place of the network's own.
        model_args: the keyword arguments that the function which builds it was given.
        output: the part of what the network returns that holds the scores, as for :func:`relume.explain`.
        recordings: makes the network's input of a recording whose channels are no colours: a signal, a volume, bands.
        shown: the channels of bands that are drawn as red, green and blue, or the one in grey; those of the file if empty.
        calibration: the calibration of the network, from which its results get their verdicts, unless another is given.
        dtype: the floating-point type of its input; if None, that of its parameters, if they have one, else float32.

    Example:
        >>> import relume
        >>> from relume.demo import draw_scene
        >>> demo = relume.open_model("demo", "cpu")
        >>> photo = draw_scene(0, ["cat", "dog"]).picture
        >>> e = demo.explain(photo, "cat", ["gradcam"])
        >>> e.name(int(e.target[0])), tuple(e["gradcam"].shape)
        ('cat', (1, 16, 16))
    """

    name: str
    model: nn.Module
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None = None
    activation: Activation = "auto"
    notes: tuple[str, ...] = ()
    weights: Path | None = None
    output: Output = None
    dtype: torch.dtype | None = None
    recordings: Preprocessing = AS_RECORDED
    shown: tuple[int, ...] = ()
    model_args: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None

    # --- Photos -----------------------------------------------------------------------------------------------------------

    def explain(
        self,
        photos: Picture | Sequence[Picture],
        target: str | TargetLike = None,
        methods: Iterable[MethodLike] = DEFAULT_METHODS,
        layer: LayerLike | Sequence[LayerLike] | None = None,
        **options: Unpack[Options],
    ) -> Explanation:
        """Explain one photo, or several in one batch: prepared as the network wants them, and drawn on as they are.

        Args:
            photos: a picture file, a PIL image or a :class:`relume.pictures.photo.Photo`, or several.
            target: as for :func:`relume.explain`, or a class by its name.
            methods: as for :func:`relume.explain`.
            layer: as for :func:`relume.explain`.
            options: as for :func:`relume.explain`; an ``activation`` of ``auto`` is that of :attr:`activation`.

        Returns:
            The explanation of all photos together; :meth:`explanations` explains many, one after the other.

        Raises:
            ImageError: a photo cannot be read or used, or photos have different sizes once they are prepared.
            ModelError: there are more or fewer labels than classes.
            RelumeError: as :func:`relume.explain`.
        """
        return self.compare(photos, [target], methods, layer, **options)[0]

    def compare(
        self,
        photos: Picture | Sequence[Picture],
        targets: Sequence[str | TargetLike],
        methods: Iterable[MethodLike] = DEFAULT_METHODS,
        layer: LayerLike | Sequence[LayerLike] | None = None,
        **options: Unpack[Options],
    ) -> Comparison:
        """Explain several targets of the same photos, which share one forward pass.

        Arguments and errors are those of :meth:`explain`, with several targets.

        Returns:
            An explanation for each target, which together make a contact sheet and a page.

        Example:
            >>> import relume
            >>> from relume.demo import draw_scene
            >>> demo = relume.open_model("demo", "cpu")
            >>> photo = draw_scene(0, ["cat", "dog"]).picture
            >>> [e.title().partition(",")[0] for e in demo.compare(photo, ["cat", "dog"], ["gradient"])]
            ['cat (4)', 'dog (6)']
        """
        several: Sequence[Picture] = photos if isinstance(photos, list | tuple) else [photos]  # type: ignore[list-item]
        comparison = self.compare_inputs([self.input_of(photo) for photo in several], targets, methods, layer, **options)
        return comparison if len(several) > 1 else _with_facts(comparison, _file(several[0]))

    def compare_inputs(
        self,
        inputs: Sequence[tuple[Photo | Recording, torch.Tensor]],
        targets: Sequence[str | TargetLike],
        methods: Iterable[MethodLike] = DEFAULT_METHODS,
        layer: LayerLike | Sequence[LayerLike] | None = None,
        **options: Unpack[Options],
    ) -> Comparison:
        """Explain photos as :meth:`compare` does, given what :meth:`input_of` returns for each: it may run elsewhere.

        Example:
            >>> import relume
            >>> from relume.demo import draw_scene
            >>> demo = relume.open_model("demo", "cpu")
            >>> inputs = [demo.input_of(draw_scene(seed).picture) for seed in (0, 1)]
            >>> demo.compare_inputs(inputs, ["cat"], ["gradient"])[0]["gradient"].shape
            torch.Size([2, 3, 128, 128])
        """
        import torch

        from relume.engine.diagnosis import AxesError, other_axes
        from relume.explanation.comparison import Comparison, compare
        from relume.models.labels import class_index

        framed, tensors = zip(*inputs, strict=True)
        if len(sizes := dict.fromkeys(tuple(image.shape[1:]) for image in tensors)) > 1:
            raise ImageError(
                "photos that are explained together have one size as the network sees them, and these have "
                f"{', '.join('×'.join(map(str, size[::-1])) for size in sizes)}; explain them one by one, or by explanations"
            )
        images = torch.stack(tensors)
        wanted = [class_index(target, self.labels) if isinstance(target, str) else target for target in targets]
        if options.get("activation", "auto") == "auto":
            options["activation"] = self.activation
        options = {"output": self.output, "labels": self.labels, "calibration": self.calibration, **options}
        try:
            explained = compare(self.model, images.to(self.device), wanted, methods, layer, **options)
        except TargetError as error:
            raise self._with_names(error, wanted) from error
        except AxesError as error:  # a file has the axes that it has: none is missing
            raise other_axes(self.model, images) or error from error
        provenance = {**self.provenance, "rectifiers": options.get("rectifiers", "all")}
        return Comparison(tuple(self._named(e, framed, provenance) for e in explained))

    def explanations(
        self,
        photos: Iterable[P],
        target: str | TargetLike = None,
        methods: Iterable[MethodLike] = DEFAULT_METHODS,
        layer: LayerLike | Sequence[LayerLike] | None = None,
        **options: Unpack[Options],
    ) -> Iterator[tuple[P, Explanation | Exception]]:
        """Explain any number of photos in batches; yield each with its explanation, or with what went wrong, in order.

        A photo that cannot be read, or that the network fails on, stops no other. Maps are those of photos explained alone, up
        to rounding, unless the network mixes the images of a batch. A generator that a wrapper draws from, such as that of
        :class:`relume.Smooth`, begins with the same state for each of them.

        Args:
            photos: as for :meth:`explain`, any number; they are read when their turn comes.
            target: as for :meth:`explain`.
            methods: as for :meth:`explain`.
            layer: as for :meth:`explain`.
            options: as for :meth:`explain`. ``batch_size`` is the number of photos in one forward pass, at most; 8 if None.
                More need more memory, and are faster on a GPU.

        Example:
            >>> import relume
            >>> from relume.demo import draw_scene
            >>> demo = relume.open_model("demo", "cpu")
            >>> photos = [draw_scene(0, ["cat"]).picture, "missing.jpg", draw_scene(1, ["cat"]).picture]
            >>> for photo, e in demo.explanations(photos, "cat", ["gradcam"], batch_size=2):
            ...     print(e if isinstance(e, Exception) else e.title().partition(",")[0])
            cat (4)
            there is no file 'missing.jpg'; check the path
            cat (4)
        """
        for photo, result in self.comparisons(photos, [target], methods, layer, **options):
            yield photo, result if isinstance(result, Exception) else result[0]

    def comparisons(
        self,
        photos: Iterable[P],
        targets: Sequence[str | TargetLike],
        methods: Iterable[MethodLike] = DEFAULT_METHODS,
        layer: LayerLike | Sequence[LayerLike] | None = None,
        *,
        read: Callable[[P], Photo | Recording] | None = None,
        **options: Unpack[Options],
    ) -> Iterator[tuple[P, Comparison | Exception]]:
        """Explain several targets of any number of photos in batches, as :meth:`explanations` does for one target.

        ``read``, if given, reads a photo in place of :func:`relume.models.photos.as_input`.
        """
        from relume.methods.wrapper import rewinding
        from relume.models.photos import as_input, in_batches

        methods, batch_size = [*methods], options.pop("batch_size", None)
        rewind = rewinding(methods)

        def load(photo: P) -> tuple[P, Photo | Recording]:
            return photo, as_input(photo) if read is None else read(photo)

        def run(batch: Sequence[tuple[P, Photo | Recording]]) -> list[Comparison]:
            rewind()
            explained = self.compare([loaded for _, loaded in batch], targets, methods, layer, **options)
            return [_alone(explained, i, photo) for i, (photo, _) in enumerate(batch)]

        return in_batches(photos, BATCH_SIZE if batch_size is None else batch_size, load, run)

    def run(self, source: Any, output: str | Path, **options: Any) -> relume.Run:
        """Explain every picture of a source into a folder: see :func:`relume.run`, which has the options and the errors.

        Example:
            >>> import relume
            >>> from relume.demo import draw_scene
            >>> scenes = [draw_scene(seed, ["cat"]).picture for seed in range(3)]
            >>> run = relume.open_model("demo", "cpu").run(scenes, "run", methods=["gradcam"], target="cat")
            >>> run.explanation("2").title().partition(",")[0]
            'cat (4)'
        """
        return relume.run(self, source, output, **options)

    def calibrate(self, photos: Any, **options: Any) -> relume.Calibration:
        """Measure in mosaics of photos how well methods point: see :func:`relume.calibrate`, which has options and errors.

        Example:
            >>> import relume
            >>> demo = relume.open_model("demo", "cpu")
            >>> calibration = demo.calibrate("scenes:16", methods=["gradcam"], mosaics=4)
            >>> calibration.mosaics, calibration.photos
            (4, 16)
        """
        return relume.calibrate(self, photos, **options)

    def check_labels(self) -> None:
        """Refuse labels that are not one for each class, before a long run begins, by explaining an empty picture.

        Raises:
            ModelError: there are more or fewer labels than classes.
        """
        from PIL import Image

        try:
            self.explain(Image.new("RGB", (256, 256)), methods=["gradient"], evidence=None)
        except ModelError:
            raise
        except Exception:  # noqa: BLE001 - it may be wrong with this picture alone, and is an error of the run if not
            return

    def _named(self, e: Explanation, photos: Sequence[Photo | Recording], provenance: Mapping[str, Any]) -> Explanation:
        """Return an explanation that knows the network's name and the photos."""
        known = {"model": self.name, "photos": photos}
        return dataclasses.replace(e, provenance={**e.provenance, **provenance}, **known)  # type: ignore[arg-type]

    def _with_names(self, error: TargetError, targets: Sequence[TargetLike]) -> TargetError:
        """Return the error with the name of a class that is contrasted with itself."""
        from relume.targets import Contrast

        sentence, labels = str(error), self.labels or ()
        others = (target.against for target in targets if isinstance(target, Contrast))
        for index in {other for other in others if isinstance(other, int)}:
            if 0 <= index < len(labels):
                sentence = sentence.replace(f"class {index} is contrasted", f"class {index} ({labels[index]}) is contrasted")
        return type(error)(sentence)

    # --- The network ------------------------------------------------------------------------------------------------------

    def prepared(self, photo: Picture, **options: Unpack[Preparing]) -> Opened:
        """Return the same with a faster network: see :func:`relume.prepare`, which has the options and the errors.

        Args:
            photo: an example of the photos that it will be given.
            options: as for :func:`relume.prepare`.
        """
        from relume.acceleration.prepared import prepare
        from relume.engine.diagnosis import AxesError, other_axes

        _, image = self.input_of(photo)
        try:
            model = prepare(self.model, image[None], **options)
        except AxesError as error:
            raise other_axes(self.model, image[None]) or error from error
        return dataclasses.replace(self, model=model, dtype=image.dtype)

    def embedding(self, photo: Picture) -> torch.Tensor:
        """Return the network's embedding of a photo, ``(D,)``, as a reference for :class:`relume.targets.Embedding`.

        Raises:
            ImageError: the photo cannot be read.
            TargetError: the network returns no embedding, or several tensors that may be one.

        Example:
            >>> import relume
            >>> from relume.demo import draw_scene
            >>> relume.open_model("demo", "cpu").embedding(draw_scene(0).picture).shape
            torch.Size([12])
        """
        from relume.engine.reading import Reading
        from relume.engine.trace import Trace
        from relume.targets.outputs import embeddings

        _, image = self.input_of(photo)
        trace = Trace.run(self.model, image[None].to(self.device), Reading(output=self.output))
        return embeddings(trace.outputs, 1)[0].detach()

    def input_of(self, photo: Picture) -> tuple[Photo | Recording, torch.Tensor]:
        """Return a photo with the part that the network sees of it, and the network's input, ``(C, *spatial)``.

        The input has the floating-point type that the network computes in.

        Raises:
            ImageError: the photo cannot be read or used.

        Example:
            >>> import numpy as np, relume
            >>> from relume.pictures import Recording
            >>> demo = relume.open_model("demo", "cpu")
            >>> photo, image = demo.input_of(Recording(np.zeros((3, 40, 50)), "bands"))
            >>> photo.kind, image.shape
            ('bands', torch.Size([3, 40, 50]))
        """
        import torch

        from relume.models.photos import as_input
        from relume.pictures.recording import Recording

        seen = as_input(photo)
        if self.shown and isinstance(seen, Recording):
            seen = dataclasses.replace(seen, shown=self.shown)
        framed, image = self.preprocessing_of(seen).prepare(seen)
        if self.dtype is not None:
            return framed, image.to(self.dtype)
        dtypes = {p.dtype for p in self.model.parameters() if p.is_floating_point() and p.dtype.itemsize > 1}
        return framed, image.to(dtypes.pop() if len(dtypes) == 1 else torch.float32)

    def preprocessing_of(self, photo: Photo | Recording) -> Preprocessing:
        """Return the preprocessing of a photo, or of a recording: that of photos if its channels are colours."""
        from relume.pictures.photo import Photo

        return self.preprocessing if isinstance(photo, Photo) or photo.is_colour else self.recordings

    @property
    def device(self) -> torch.device:
        """Return the device of the network and its input; of one on several devices, the device of its first weights."""
        import torch

        tensors = chain(self.model.parameters(), self.model.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))

    @property
    def provenance(self) -> dict[str, Any]:
        """Return what a result records of its network, as plain data."""
        from relume.engine.preparation import preparation_of

        preparation = preparation_of(self.model)
        return {
            "model": self.name,
            "device": str(self.device),
            "prepared": None if preparation is None else str(preparation),
            "weights": None if self.weights is None else str(self.weights),
            "preprocessing": self.preprocessing.as_dict(),
            "recordings": self.recordings.as_dict(),
            "output": None if self.output is None else str(self.output),
            "notes": list(self.notes),
        }


def _alone(comparison: Comparison, i: int, photo: Picture) -> Comparison:
    """Return what one photo of a batch would give alone: its weak maps are compared with its own maps."""
    from relume.explanation.comparison import Comparison
    from relume.explanation.result import compared

    ones = Comparison(tuple(dataclasses.replace(e[i], strongest={}) for e in comparison))
    return Comparison(tuple(compared([*_with_facts(ones, _file(photo))])))


def _with_facts(comparison: Comparison, facts: Mapping[str, Any]) -> Comparison:
    """Return the same with more provenance."""
    from relume.explanation.comparison import Comparison

    return Comparison(tuple(dataclasses.replace(e, provenance={**e.provenance, **facts}) for e in comparison))


def _file(photo: Picture) -> dict[str, str]:
    """Return what a result records of a photo's file: its path as given, and with links followed."""
    return {"file": str(photo), "path": os.path.realpath(photo)} if isinstance(photo, str | Path) else {}
