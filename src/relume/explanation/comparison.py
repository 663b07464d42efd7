"""Several targets of the same images side by side, on a contact sheet and on a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, overload

from relume.errors import InputError
from relume.explanation.answer import compared
from relume.explanation.result import Explanation, Kinds, Scale, share, sheet
from relume.maps import array
from relume.pages.comparison import LONGEST, MapView, PhotoView, TargetView, compare_page
from relume.pages.folder import write_folder
from relume.pictures.figure import figure_bytes, pages
from relume.pictures.scale import PERCENTILE
from relume.text import encoded, name_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PAGE", "ROWS", "Comparison", "comparison_files"]

#: The names of the page and of the contact sheet.
PAGE, SHEET = "compare.html", "sheet"

#: How many rows a page of the PDF has.
ROWS = 6


@dataclass(frozen=True, slots=True, eq=False)
class Comparison(Sequence[Explanation]):
    """Explanations of the same images by the same methods, one for each target.

    It is a sequence: ``comparison[0]`` explains the first target.

    Attributes:
        explanations: the explanation of each target.

    Example:
        >>> import relume
        >>> from relume.demo import draw_scene
        >>> from relume.explanation.comparison import Comparison
        >>> network, scene = relume.open_model("demo"), draw_scene(0, ["cat", "dog"]).picture
        >>> comparison = Comparison(tuple(network.explain(scene, target, ["gradcam"]) for target in ("cat", "dog")))
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

    def _repr_html_(self) -> str:
        return "".join(e._repr_html_() or "" for e in self.explanations)


def comparison_files(comparisons: Sequence[Comparison], *, kind: Kinds = None) -> dict[str, bytes]:
    """Return one page and one contact sheet of several comparisons, such as one for each photo, as files by name.

    Raises:
        InputError: there is none, or they are of different networks, methods or scales.
    """
    rows = _rows(comparisons)
    sheets = (sheet(rows[start : start + ROWS], kind=kind) for start in range(0, len(rows), ROWS))
    groups, taken = [c.images() for c in comparisons], iter(rows)
    views = [_photo_view([next(taken) for _ in targets], kind) for images in groups for targets in images]
    return {
        f"{SHEET}.png": figure_bytes(sheet(rows, kind=kind)),
        f"{SHEET}.pdf": pages(sheets),
        PAGE: encoded(compare_page(views, title="relume")),
    }


def _rows(comparisons: Sequence[Comparison]) -> list[Explanation]:
    """Return the explanation of each image for each target, images first; each knows the strongest map of all."""
    return compared([e for comparison in comparisons for targets in comparison.images() for e in targets])


def _lighter(e: Explanation) -> Explanation:
    photos = e.photos and [replace(photo.fitted(LONGEST), content=None) for photo in e.photos]
    return replace(e, photos=photos)


def _photo_view(targets: Sequence[Explanation], kind: Kinds) -> PhotoView:
    """Describe one image for the page, explained for each target."""
    first = targets[0]
    photo = first._photo(0, None)
    (width, height), (left, top, right, bottom) = photo.picture.size, photo.box
    size = photo.original or photo.picture.size
    across, down = size[0] / width, size[1] / height
    return PhotoView(
        name=name_of(first.source) or "input",
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
    facts = {"model": e.model, "weights": e.source.get("weights") or "the network's own", "layer": e.layer or "none"}
    facts |= {"coverage": e.reached, "scores": e.scores_are, "scale": str(e.scaling)}
    if "rectifiers" in e.source:
        facts["rectifiers"] = e.source["rectifiers"]
    if smooth := e.source.get("smooth"):
        facts["smoothed"] = f"{smooth['samples']} noisy copies, noise {smooth['noise']:g}, seed {smooth['seed']}"
    return facts | ({"file": "; ".join(notes)} if notes else {})


def _map_view(e: Explanation, method: str, kind: Kinds) -> MapView:
    """Describe one map for the page."""
    drawing, full, values = e.kind(method, kind), e.scale(method)[0], e.drawn(method)
    low, high = drawing.ends or (0, 1)
    drawn = f"{e.scaling}{', drawn as heat' if drawing.on_photo else ''}"
    return MapView(
        key=method,
        name=e.infos[method].title,
        values=array(e[method][0].float()),
        layer=drawing.layer(values, full),
        bar=drawing.layer(drawing.ramp, 1),
        ends=(low * full, high * full),
        legend="; ".join(part for part in (drawn if values.any() else "", e.doubt(method)) if part),
        note="; ".join(words for words in (e.remark(method), e.weak_here(method)) if words),
    )
