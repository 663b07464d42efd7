"""Several targets of the same images side by side, on a contact sheet and on a page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, overload

from relume.engine.inputs import Inputs, Model
from relume.errors import InputError
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
from relume.pictures.figure import figure_bytes, pages
from relume.pictures.ground import bands_photo
from relume.pictures.photo import Photo
from relume.pictures.recording import Recording
from relume.pictures.scale import PERCENTILE
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
            counts = ", ".join(str(len(e)) for e in self.explanations) or "none"
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

        ``compare.html`` is one file that needs no network, on which maps lie over the photo and are read value by value;
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
    views = [_photo_view([next(explained) for _ in targets], kind, i) for i, targets in enumerate(groups)]
    return {
        f"{SHEET}.png": figure_bytes(sheet(rows, kind=kind)),
        f"{SHEET}.pdf": pages(sheets),
        PAGE: encoded(compare_page(views, title="relume")),
    }


def _rows(comparisons: Sequence[Comparison]) -> list[Explanation]:
    """Return the explanation of each image for each target, images first; each knows the strongest map of all."""
    return compared([e for comparison in comparisons for targets in comparison.images() for e in targets])


def _lighter(e: Explanation) -> Explanation:
    photos = [replace(p.fitted(LONGEST), content=None) if isinstance(p, Photo) else p for p in e.photos or ()]
    return replace(e, photos=photos or None)


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
    facts["maps"] = "; ".join(dict.fromkeys(info.note for info in e.infos.values() if info.note))
    return {name: words for name, words in facts.items() if words}


def _map_view(e: Explanation, method: str, kind: Kinds) -> MapView:
    """Describe one map for the page."""
    drawn = drawn_map(e, method, kind)
    drawing, full, values = drawn.kind, drawn.scale, drawn.values
    low, high = drawing.ends or (0, 1)
    how = f"{e.scaling}{', drawn as heat' if drawing.on_photo else ''}"
    return MapView(
        key=method,
        name=e.infos[method].title,
        values=array(e[method][0].float()),
        layer=drawing.layer(values, full),
        bar=drawing.layer(drawing.ramp, 1),
        ends=(low * full, high * full),
        legend="; ".join(part for part in (how if values.any() else "", e.doubt(method)) if part),
        note="; ".join(words for words in (e.remark(method), e.weak_here(method)) if words),
    )
