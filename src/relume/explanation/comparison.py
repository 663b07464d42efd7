"""Several targets of the same images side by side, on a contact sheet and on a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

from relume.engine.inputs import Inputs, Model
from relume.errors import InputError
from relume.explanation.belief import LEVELS, PREDICTION, UNCALIBRATED
from relume.explanation.drawing import Kinds, drawn_map, is_drawn
from relume.explanation.request import Layers, Options, Request, with_options
from relume.explanation.result import Explanation, Scale, compared
from relume.explanation.run import explanations
from relume.explanation.scales import share
from relume.explanation.sheet import notebook, sheet
from relume.maps import array
from relume.methods.names import DEFAULT_METHODS
from relume.methods.wrapper import MethodLike
from relume.pages.comparison import LONGEST, MapView, PhotoView, TargetView, compare_page
from relume.pages.folder import write_folder
from relume.pages.recordings import MOST_CELLS, RecordingMap, RecordingTarget, RecordingView, recordings_page
from relume.pictures.figure import figure_bytes, pages
from relume.pictures.ground import bands_photo, bar, cut, draw, palette
from relume.pictures.kinds import extreme
from relume.pictures.montage import DrawnMap, limits, shown_channels
from relume.pictures.photo import Photo
from relume.pictures.recording import Recording
from relume.pictures.scale import PERCENTILE
from relume.pictures.volume import peak
from relume.targets.base import TargetLike
from relume.text import encoded, name_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PAGE", "Comparison", "compare", "comparison_files"]

#: The names of the page and of the contact sheet.
PAGE, SHEET = "compare.html", "sheet"

#: How many rows a page of the PDF has.
ROWS = 6


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Comparison(Sequence[Explanation]):
    """Explanations of the same images by the same methods, one for each target.

    It is a sequence: ``comparison[0]`` explains the first target.

    Attributes:
        explanations: the explanation of each target.

    Example:
        >>> import relume
        >>> from relume.demo import draw_scene
        >>> scene = draw_scene(0, ["cat", "dog"]).picture
        >>> comparison = relume.open_model("demo").compare(scene, ["cat", "dog"], ["gradcam"])
        >>> len(comparison), sorted(comparison.files())
        (2, ['compare.html', 'sheet.pdf', 'sheet.png'])
    """

    explanations: tuple[Explanation, ...]

    def __post_init__(self) -> None:
        if not self.explanations or len({len(e) for e in self.explanations}) > 1:
            counts = ", ".join(str(len(e)) for e in self.explanations) or "no"
            raise InputError(f"a comparison has explanations of the same images, one at least; these have {counts} images")

    def __len__(self) -> int:
        return len(self.explanations)

    @overload
    def __getitem__(self, index: int) -> Explanation: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Explanation, ...]: ...
    def __getitem__(self, index: int | slice) -> Explanation | tuple[Explanation, ...]:
        return self.explanations[index]

    def images(self) -> Iterator[tuple[Explanation, ...]]:
        """Iterate over the images: the explanations of each for every target."""
        return zip(*self.explanations, strict=True)

    def scaled(self, scale: Scale | Mapping[str, float] = "shared", *, percentile: float = PERCENTILE) -> Comparison:
        """Return the same comparison drawn at another scale: see :meth:`relume.Explanation.scaled`."""
        return Comparison(tuple(share(self.explanations, scale, percentile=percentile)))

    def lighter(self) -> Comparison:
        """Return the same comparison with photos no larger than a page shows them, and without their files."""
        return Comparison(tuple(_lighter(e) for e in self.explanations))

    def figure(self, *, kind: Kinds = None, columns: int | None = None, dpi: float = 150) -> Figure:
        """Draw the contact sheet: a row for each image and target; see :meth:`relume.Explanation.figure`."""
        return sheet(_rows([self]), kind=kind, columns=columns, dpi=dpi)

    def files(self, *, kind: Kinds = None) -> dict[str, bytes]:
        """Return the files that :meth:`save` writes, by name."""
        return comparison_files([self], kind=kind)

    def save(self, directory: str | Path, *, kind: Kinds = None) -> Path:
        """Write the page and the contact sheet into ``directory``, all or nothing, and return it.

        ``compare.html`` is one file that needs no internet, on which maps lie over the photo and are read value by value;
        ``sheet.png`` and ``sheet.pdf`` are the contact sheet.

        Args:
            directory: the folder, which is made if there is none.
            kind: the kind of picture, for all methods or by method; the one that suits each map if None.

        Raises:
            OutputError: the directory cannot be written to; nothing was left behind.
        """
        return write_folder(Path(directory), self.files(kind=kind))

    def __str__(self) -> str:
        return "\n".join(map(str, self.explanations))

    __repr__ = __str__

    def _repr_html_(self) -> str | None:
        return notebook(_rows([self])) if is_drawn(self.explanations[0]) else None


@with_options(Options)
def compare(
    model: Model,
    images: Inputs,
    targets: Sequence[TargetLike],
    methods: Iterable[MethodLike] = DEFAULT_METHODS,
    layer: Layers = None,
    **options: Unpack[Options],
) -> Comparison:
    """Explain several targets of the same images, which share the forward pass.

    Args:
        model: as for :func:`relume.explain`, as are ``images``, ``methods``, ``layer`` and the options.
        images: the images, ``(N, C, *spatial)``.
        targets: what to explain, each as ``target`` of :func:`relume.explain`.
        methods: the methods.
        layer: Grad-CAM's target layer.
        **options: the options.

    Raises:
        InputError: there is no target.
        RelumeError: as :func:`relume.explain`.

    Example:
        >>> import relume, torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
        >>> first, second = relume.compare(network, torch.rand(1, 3, 4, 4), [0, 1], methods=["gradient"])
        >>> first.target, second.target
        (tensor([0]), tensor([1]))
    """
    return Comparison(tuple(explanations(model, images, Request.of(targets, methods, layer, **options))))


def comparison_files(comparisons: Sequence[Comparison], *, kind: Kinds = None) -> dict[str, bytes]:
    """Return one page and one contact sheet of several comparisons, such as one for each photo, as files by name.

    Raises:
        InputError: there is none, or they are of different networks, methods or scales.
    """
    rows = _rows(comparisons)
    sheets = (sheet(rows[start : start + ROWS], kind=kind) for start in range(0, len(rows), ROWS))
    explained, groups = iter(rows), (targets for comparison in comparisons for targets in comparison.images())
    by_image = [[next(explained) for _ in targets] for targets in groups]
    return {
        f"{SHEET}.png": figure_bytes(sheet(rows, kind=kind)),
        f"{SHEET}.pdf": pages(sheets),
        PAGE: encoded(_page(by_image, kind)),
    }


def _rows(comparisons: Sequence[Comparison]) -> list[Explanation]:
    """Return the explanation of each image for each target, images first; each knows the strongest map of all."""
    return compared([e for comparison in comparisons for targets in comparison.images() for e in targets])


def _lighter(e: Explanation) -> Explanation:
    photos = [replace(p.fitted(LONGEST), content=None) if isinstance(p, Photo) else p for p in e.photos or ()]
    return replace(e, photos=photos or None)


def _page(by_image: Sequence[Sequence[Explanation]], kind: Kinds) -> str:
    """Write the page of images, or that of recordings of one kind."""
    grounds = [targets[0].ground() for targets in by_image]
    kinds = {ground.kind if isinstance(ground, Recording) and ground.kind != "bands" else "photo" for ground in grounds}
    if kinds == {"photo"}:
        return compare_page([_photo_view(targets, kind, i) for i, targets in enumerate(by_image)], title="relume")
    if len(kinds) > 1:
        raise InputError(
            f"a page is of photos or of recordings of one kind; got {', '.join(sorted(kinds))}; compare them apart"
        )
    both = zip(by_image, (ground for ground in grounds if isinstance(ground, Recording)), strict=True)
    return recordings_page([_recording_view(*each, kind, i) for i, each in enumerate(both)], title="relume")


def _photo_view(targets: Sequence[Explanation], kind: Kinds, number: int) -> PhotoView:
    """Describe one image for the page, explained for each target; ``number`` is its name if there is no file."""
    first = targets[0]
    ground = first.ground()
    photo = bands_photo(ground) if isinstance(ground, Recording) else ground
    (width, height), (left, top, right, bottom) = photo.picture.size, photo.box
    size = photo.original or photo.picture.size
    across, down = size[0] / width, size[1] / height
    return PhotoView(
        name=name_of(first.provenance) or f"image {number}",
        photo=photo.picture,
        size=size,
        box=(left * across, top * down, right * across, bottom * down),
        targets=[TargetView(e.title(), [_map_view(e, method, kind) for method in e.maps]) for e in targets],
        top=[(name, value) for _, name, value in first.top()],
        quantity=first.quantity,
        facts=_facts(first, photo.notes),
    )


def _facts(e: Explanation, notes: Sequence[str]) -> dict[str, str]:
    """Return what the page says of the network and of how it was explained."""
    weights = (e.provenance["weights"] or "the network's own") if "weights" in e.provenance else ""
    facts = {"model": e.model, "weights": weights, "layer": e.layer or "none"}
    facts |= {"coverage": e.reached, "scores": e.scores_are, "scale": str(e.scaling)}
    facts |= {"rectifiers": e.provenance.get("rectifiers", ""), "file": "; ".join(notes)}
    facts["belief"] = UNCALIBRATED.text if UNCALIBRATED in map(e.verdict, e.maps) else ""
    facts["probability"] = PREDICTION if e.quantity == "probability" else ""
    facts["maps"] = "; ".join(dict.fromkeys(info.note for info in e.infos.values() if info.note))
    return {name: words for name, words in facts.items() if words}


def _map_view(e: Explanation, method: str, kind: Kinds) -> MapView:
    """Describe one map for the page."""
    drawn = drawn_map(e, method, kind)
    layer, strip = drawn.kind.layer(drawn.values, drawn.scale), drawn.kind.layer(drawn.kind.ramp, 1)
    return MapView(values=array(e[method][0].float()), layer=layer, bar=strip, **_named(e, method, drawn))


def _named(e: Explanation, method: str, drawn: DrawnMap) -> dict[str, Any]:
    """Return what every page says of one map, by the names of its views."""
    low, high = drawn.kind.ends or (0, 1)
    how = f"{e.scaling}{', drawn as heat' if drawn.kind.on_photo else ''}"
    verdict = e.verdict(method)
    level = "" if verdict.level in ("nothing", "uncalibrated") else LEVELS[verdict.level]
    belief = "" if verdict.level == "nothing" or verdict == UNCALIBRATED else verdict.text
    return {
        "key": method,
        "name": e.infos[method].title,
        "ends": (low * drawn.scale, high * drawn.scale),
        "legend": "; ".join(part for part in (how if drawn.values.any() else "", e.doubt(method), belief) if part),
        "note": "; ".join(words for words in (level, e.remark(method), e.weak_here(method)) if words),
    }


def _recording_view(targets: Sequence[Explanation], recording: Recording, kind: Kinds, number: int) -> RecordingView:
    """Describe one signal, volume or video for the page, explained for each target."""
    first, is_signal = targets[0], recording.kind == "signal"
    values, facts = recording.values if is_signal else shown_channels(recording), _facts(first, recording.notes)
    if not is_signal:
        facts["steps"] = f"{recording.kind} and maps in 255 steps; the raw maps are saved with an explanation"
        facts |= {"shown": f"coarser than the {recording.kind}"} if values[0].size > MOST_CELLS else {}
    return RecordingView(
        name=name_of(first.provenance) or f"{recording.kind} {number}",
        kind=recording.kind,
        values=values,
        limits=(0, 1) if is_signal else limits(recording),
        spacing=recording.spacing,
        unit=recording.unit,
        box=recording.box,
        picture=draw(recording, size=400),
        targets=[RecordingTarget(e.title(), [_recording_map(e, m, recording, kind) for m in e.maps]) for e in targets],
        channels=cut(recording, drawn_map(first, [*first.maps][-1])) if is_signal else (),
        bands=recording.bands,
        top=[(name, value) for _, name, value in first.top()],
        facts=facts,
        quantity=first.quantity,
    )


def _recording_map(e: Explanation, method: str, recording: Recording, kind: Kinds) -> RecordingMap:
    """Describe one map of a signal, volume or video for the page."""
    drawn, values = drawn_map(e, method, kind), array(e[method][0].float())
    is_signal = recording.kind == "signal"
    return RecordingMap(
        values=values if is_signal or values.ndim == 3 else extreme(values, 0),
        full=drawn.scale,
        colours=palette(recording, drawn.kind),
        picture=draw(recording, drawn, size=900 if is_signal else 480),
        bar=(bar(recording, drawn.kind) if is_signal else None) or drawn.kind.layer(drawn.kind.ramp, 1),
        at=() if is_signal else peak(recording, drawn),
        **_named(e, method, drawn),
    )
