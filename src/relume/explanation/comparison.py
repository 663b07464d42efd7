"""Targets and methods side by side: :func:`compare`, its figure, and the page on which a reader compares maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self, Unpack, overload

from relume.engine.inputs import Inputs, Model
from relume.explanation.request import Layers, Options, Request, with_options
from relume.explanation.result import Explanation, Kinds, Scale
from relume.explanation.run import explanations
from relume.explanation.scales import share
from relume.explanation.sheet import notebook, sheet
from relume.maps import array
from relume.methods.wrapper import MethodLike
from relume.pages.comparison import LONGEST, MapView, PhotoView, TargetView, compare_page
from relume.pages.folder import write_folder
from relume.pictures.figure import figure_bytes, pages
from relume.pictures.kinds import layer
from relume.pictures.photo import Box
from relume.targets.base import TargetLike
from relume.text import encoded, name_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Compared", "Comparison", "compare", "comparison_files"]

ROWS = 6  # on a page of the PDF


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Comparison(Sequence[Explanation]):
    """Explanations of the same images, one for each target, by the same methods: a sequence that draws and saves itself.

    Attributes:
        explanations: the explanation of each target, each of all images.

    Example:
        >>> import relume, torch
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
        >>> first, second = relume.compare(network, torch.rand(1, 3, 4, 4), [0, 1], methods=["gradient"])
        >>> first.target, second.target
        (tensor([0]), tensor([1]))
    """

    explanations: Sequence[Explanation]

    def __len__(self) -> int:
        return len(self.explanations)

    @overload
    def __getitem__(self, key: int) -> Explanation: ...
    @overload
    def __getitem__(self, key: slice) -> Self: ...
    def __getitem__(self, key: int | slice) -> Explanation | Self:
        """Return the explanation of one target, or the comparison of some."""
        return replace(self, explanations=self.explanations[key]) if isinstance(key, slice) else self.explanations[key]

    def scaled(self, scale: Scale | Mapping[str, float] = "shared") -> Self:
        """Return the same comparison drawn at another scale, by default one for all targets: see :meth:`Explanation.scaled`."""
        return replace(self, explanations=share(self.explanations, scale))

    def figure(self, *, kind: Kinds = None, columns: int | None = None, dpi: float = 150) -> Figure:
        """Draw the targets in rows: arguments as for :meth:`relume.Explanation.figure`."""
        return sheet(self.explanations, kind=kind, columns=columns, dpi=dpi)

    def save(self, directory: str | Path, *, kind: str | None = None) -> Path:
        """Write ``index.html``, ``sheet.png`` and ``sheet.pdf`` into ``directory``, all or nothing, and return it.

        On the page, one file that needs no network, a reader lays maps over the image, reads raw values and downloads them.

        Raises:
            OutputError: the directory cannot be written to; nothing was left behind.
            InputError: the images are not two-dimensional.

        Example:
            >>> import relume, tempfile, torch
            >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
            >>> both = relume.compare(network, torch.rand(1, 3, 4, 4), [0, 1], methods=["gradient"])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     sorted(path.name for path in both.save(folder).iterdir())
            ['index.html', 'sheet.pdf', 'sheet.png']
        """
        count = len(self.explanations[0]) if self.explanations else 0
        photos = [Compared.of([e[i] for e in self.explanations], f"image {i}") for i in range(count)]
        return write_folder(Path(directory), comparison_files(photos, kind))

    def __str__(self) -> str:
        return "\n".join(map(str, self.explanations))

    __repr__ = __str__

    def _repr_html_(self) -> str | None:
        return notebook(self.explanations) if self.explanations and self.explanations[0].images.ndim == 4 else None


@with_options(Options)
def compare(
    model: Model,
    images: Inputs,
    targets: Sequence[TargetLike],
    methods: Iterable[MethodLike] = ("guided_backprop", "gradcam", "guided_gradcam"),
    layer: Layers = None,
    **options: Unpack[Options],
) -> Comparison:
    """Explain several targets of the same images, which share the forward pass.

    Args:
        model: as for :func:`relume.explain`, as are ``images``, ``methods``, ``layer`` and the options.
        images: the images.
        targets: what to explain, each as ``target`` of :func:`relume.explain`.
        methods: the methods.
        layer: Grad-CAM's target layer.
        **options: the options.

    Raises:
        RelumeError: as :func:`relume.explain`.

    Example:
        >>> import relume, torch
        >>> opened = relume.open_model("demo")
        >>> both = relume.compare(opened.model, torch.rand(1, 3, 96, 96), [0, 1], methods=["gradcam"])
        >>> [e.title().partition(",")[0] for e in both]
        ['0', '1']
    """
    return Comparison(explanations(model, images, Request.of(targets, methods, layer, **options)))


class Compared(NamedTuple):
    """The explanations of one photo, a target each, drawn on a copy of the photo that is no larger than the page shows it.

    ``size`` and ``box`` are those of the photo itself: a hundred photos of twelve megapixels do not fit into memory.
    """

    name: str
    targets: Sequence[Explanation]
    size: tuple[int, int]
    box: Box

    @classmethod
    def of(cls, targets: Sequence[Explanation], name: str = "") -> Self:
        """Make the copy of the photo; ``name`` is for explanations that do not know the name of their file."""
        first = targets[0]
        photo = first.photo_at()
        small = replace(photo.fitted(LONGEST), content=None)
        lighter = [replace(e, photos=None if e.photos is None else [small]) for e in targets]
        return cls(name_of(first.provenance) or name, lighter, photo.picture.size, photo.box)


def comparison_files(photos: Sequence[Compared], kind: str | None = None) -> dict[str, bytes]:
    """Draw the sheet, as a picture and as pages, and write the page; by the names of their files."""
    rows = [e for photo in photos for e in photo.targets]
    sheets = (sheet(rows[start : start + ROWS], kind=kind) for start in range(0, len(rows), ROWS))
    return {
        "sheet.png": figure_bytes(sheet(rows, kind=kind)),
        "sheet.pdf": pages(sheets),
        "index.html": encoded(compare_page([_photo_view(photo, kind) for photo in photos], title="relume")),
    }


def _photo_view(compared: Compared, kind: str | None) -> PhotoView:
    first = compared.targets[0]
    photo, provenance = first.photo_at(), first.provenance
    facts = {
        "model": first.model,
        "weights": (provenance["weights"] or "the network's own") if "weights" in provenance else "",
        "layer": first.layer or "none",
        "coverage": first.reached,
        "rectifiers": provenance.get("rectifiers", ""),
        "scores": first.scores_are,
        "scale": str(first.scaling),
        "file": "; ".join(photo.notes),
        "maps": "; ".join(dict.fromkeys(info.note for info in first.infos.values() if info.note)),
    }
    return PhotoView(
        name=compared.name,
        photo=photo.picture,
        size=compared.size,
        box=compared.box,
        targets=[TargetView(e.title(), [_map_view(e, m, kind) for m in e.maps]) for e in compared.targets],
        top=[(name, value) for _, name, value in first.top()],
        quantity=first.quantity,
        facts={name: words for name, words in facts.items() if words},
    )


def _map_view(e: Explanation, method: str, kind: str | None) -> MapView:
    """Draw a map as a layer of the page; a kind that shows the photo itself, as heat."""
    drawing, full, values = e.kind(method, kind), e.scale(method)[0], e.drawn(method)
    drawn = str(e.scaling) + (", drawn as heat" if drawing.on_photo and drawing.key != "over" else "")
    low, high = drawing.ends or (0, 1)
    ramp = drawing.ramp
    return MapView(
        key=method,
        name=e.infos[method].title,
        values=array(e[method][0].float()),
        layer=drawing.layer(values, full),
        bar=layer(ramp, 1) if drawing.on_photo else drawing.draw(ramp, 1, None),
        ends=(low * full, high * full),
        legend="; ".join(part for part in (drawn if values.any() else "", e.doubt(method)) if part),
        note="; ".join(words for words in (e.remark(method), e.weak_here(method)) if words),
    )
