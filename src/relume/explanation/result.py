"""The result: what was found, its pictures and its files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from relume.errors import InputError
from relume.explanation import storage as stored
from relume.explanation.answer import Answer, compared
from relume.maps import array
from relume.pages.folder import recover, write_folder
from relume.pages.html import notebook
from relume.pictures import figure as figures
from relume.pictures.canvas import png, seen, stretched
from relume.pictures.kinds import KINDS, Kind, default_kind, share_beyond
from relume.pictures.photo import Photo, as_photo
from relume.pictures.preprocessing import IMAGENET, Preprocessing, check_same
from relume.pictures.scale import PERCENTILE, Array, Scaling
from relume.text import name_of, significant

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

__all__ = ["Explanation", "Kinds", "Scale", "share", "sheet"]

#: More rows than these are no picture any more; a notebook shows fewer.
MOST_ROWS = 16
MOST_THUMBNAILS = 6

#: What the figures under a map are.
LIKE = "like: rank correlation with the map for the runner-up, and with Sobel's edges; high speaks against the map"

_MUCH_BEYOND = 0.05
_LEAST, _MOST = 1e-37, 1e38  # what float32, in which maps are drawn, can be divided by

#: A kind of picture for every method, or for each; None for what suits the map.
Kinds: TypeAlias = str | Mapping[str, str] | None

Scale: TypeAlias = float | Literal["own", "shared"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Explanation(Answer):
    """The answer for one target of a batch of ``N`` images, which draws, shows and saves itself.

    ``e["gradcam"]`` is a method's raw map, ``e[0]`` the explanation of one image, ``e[0, "gradcam"]`` its map; iterating gives
    the explanation of each image, and ``"gradcam" in e`` asks for a method. Its attributes are those of
    :class:`relume.answer.Answer`.
    """

    def with_photos(self, photos: Sequence[str | Path | Image | Photo], preprocessing: Preprocessing = IMAGENET) -> Explanation:
        """The same explanation, drawn on ``photos`` at their own resolution: a file, a picture or a photo for each image.

        ``preprocessing`` is what made the images of them: where it cropped, the rest of a photo is dimmed.

        Raises:
            ImageError: a photo cannot be read.
            InputError: there are more or fewer photos than images, or an image is not what becomes of its photo.
        """
        if not isinstance(photos, list | tuple) or len(photos) != len(self):
            given = len(photos) if isinstance(photos, list | tuple) else f"a {type(photos).__name__}"
            raise InputError(f"photos are a list, one for each of {len(self)} images; got {given}")
        framed = [preprocessing.frame(as_photo(photo)) for photo in photos]
        for i, photo in enumerate(framed):
            check_same(preprocessing.view(photo.picture), self.images[i], i)
        return dataclasses.replace(self, photos=framed)

    def scaled(self, scale: Scale | Mapping[str, float] = "own", *, percentile: float = PERCENTILE) -> Explanation:
        """The same explanation, drawn at another scale.

        Args:
            scale: ``own``: the ``percentile`` of each map is drawn at full strength; ``shared``: the highest of the batch, for
                each method; or the value itself, for all methods or by method.
            percentile: of a map's magnitudes, from above 0 to 100.

        Raises:
            InputError: another word, a value not above zero, a method without a value.
        """
        return share([self], scale, percentile=percentile)[0]

    def photo(self, sample: int = 0) -> Image:
        """The photo at its own resolution, dimmed where the network never looked; its input if there is no photo.

        An input is stretched to the range of a display.
        """
        return seen(self._photo(sample, None))

    def _photo(self, sample: int, size: int | None) -> Photo:
        if self.images.ndim != 4:
            raise InputError(
                f"only two-dimensional images are drawn, and this input has shape {tuple(self.images.shape)}; "
                "plot e[method] yourself"
            )
        i = self.index(sample)
        photo = self.photos[i] if self.photos else Photo.whole(stretched(array(self.images[i].float())))
        return photo if size is None else photo.fitted(size)

    def picture(self, method: str, sample: int = 0, *, kind: str | None = None, size: int | None = None) -> Image:
        """One map as a picture, on its photo where the kind shows one, where the network looked.

        Args:
            method: which map.
            sample: which image.
            kind: one of :data:`relume.pictures.kinds.KINDS`; if None, colour about mid-grey for a signed map, else heat
            over the photo.
            size: the longest side in pixels, the photo's own if None.

        Raises:
            InputError: an unknown method or kind, or images that are not two-dimensional.
        """
        photo = self._photo(sample, size)
        one = self[self.index(sample)]
        return one.kind(method, kind).draw(one.drawn(method), one.scale(method)[0], photo)

    def overlay(self, method: str, sample: int = 0, *, kind: str = "over") -> Image:
        """One map over its photo, at the photo's own resolution."""
        return self.picture(method, sample, kind=kind)

    def kind(self, method: str, kind: Kinds = None) -> Kind:
        """The kind of picture that is drawn of a map: the one asked for, or what suits it."""
        if isinstance(kind, Mapping) and not set(kind) <= set(self.maps):
            raise InputError(f"kinds are for methods of this explanation, {', '.join(self.maps)}; got {', '.join(kind)}")
        key = kind.get(method) if isinstance(kind, Mapping) else kind
        return default_kind(self.infos[method]) if key is None else KINDS[key]

    def drawn(self, method: str) -> Array:
        """The first image's map as it goes into a picture: ``(C, H, W)`` signed, or ``(H, W)``, at the input's resolution."""
        values = self[method]
        return array((values if self.infos[method].place == "input" else self.saliency(method))[0].float())

    def figure(self, *, kind: Kinds = None, scale: Scale | None = None, columns: int | None = None, dpi: float = 150) -> Figure:
        """A figure for a paper: a row for each image, with the photo and every map, class, score, layer and scale.

        Args:
            kind: the kind of picture, for all methods or by method; what suits each map if None.
            scale: as for :meth:`scaled`; what :attr:`scaling` says if None.
            columns: pictures side by side; all of a row, up to seven, if None.
            dpi: dots per inch of what is not text; text stays text in PDF and SVG.
        """
        return sheet([self if scale is None else self.scaled(scale)], kind=kind, columns=columns, dpi=dpi)

    def _repr_html_(self) -> str | None:
        if self.images.ndim != 4:
            return None
        rows, notes = _rows([self], None, 256, MOST_THUMBNAILS)
        notes += [note] if (note := self.naming()) else []
        heading = f"{self.model}{f', layer {self.layer}' if self.layer else ''}"
        return notebook(rows, heading=heading, notes=notes, summary="coverage", details=str(self.coverage))

    # --- Files ------------------------------------------------------------------------------------------------------------

    def as_dict(self) -> dict[str, Any]:
        """Everything but the tensors, as plain data for JSON."""
        return stored.facts(self)

    def files(self, *, kind: Kinds = None, size: int | None = None, figure: bool = True) -> dict[str, bytes]:
        """The files that :meth:`save` writes, by name."""
        files: dict[str, bytes] = {}
        if self.images.ndim == 4:
            for i, one in enumerate(self):
                number = "" if len(self) == 1 else f".{i}"
                files |= {f"{m}{number}.png": png(one.picture(m, kind=self.kind(m, kind).key, size=size)) for m in self.maps}
            if figure:
                files["figure.png"] = figures.figure_bytes(self.figure(kind=kind))
        return files | stored.files(self, files)

    def save(self, directory: str | Path, *, kind: Kinds = None, size: int | None = None) -> Path:
        """Write pictures, a figure, raw maps and facts into ``directory``, all or nothing, and return it.

        ``METHOD.png`` for each method (``METHOD.0.png`` and so on for each image of several), at the photo's resolution or with
        a longest side of ``size``; ``figure.png``; ``photo.*``, the photo's file as it was; ``maps.safetensors``, the raw maps;
        ``tensors.safetensors``, input, scores and target; ``explanation.json``. What an earlier save wrote there goes.

        Raises:
            OutputError: the directory cannot be written to; nothing was left behind.
        """
        directory, files = Path(directory), self.files(kind=kind, size=size)
        recover(directory)  # before what is there is looked at
        return write_folder(directory, files, stale=stored.written(directory) - files.keys())

    @classmethod
    def load(cls, directory: str | Path) -> Explanation:
        """What :meth:`save` wrote: the same maps, scores, words, photos and pictures.

        Raises:
            InputError: something is missing there, or is not what :meth:`save` writes.
        """
        return cls(**stored.load(Path(directory)))


def share(
    explanations: Sequence[Explanation], scale: Scale | Mapping[str, float] = "shared", *, percentile: float = PERCENTILE
) -> list[Explanation]:
    """The same explanations, of several photos or targets, at another scale: see :meth:`Explanation.scaled`."""
    if not 0 < percentile <= 100:
        raise InputError(f"a percentile is a number above 0, up to 100; got {percentile}")
    methods = list(dict.fromkeys(m for e in explanations for m in e.maps))
    if scale == "own":
        scaling = Scaling(percentile)
    elif scale == "shared":
        own = [dataclasses.replace(e, scaling=Scaling(percentile)) for e in explanations]
        full = {m: max((value for e in own if m in e for value in e.scale(m)), default=0.0) for m in methods}
        scaling = Scaling(percentile, full, "shared")
    else:
        scaling = Scaling(percentile, _given(methods, scale), "fixed")
    return [dataclasses.replace(e, scaling=scaling) for e in explanations]


def _given(methods: Sequence[str], scale: float | Mapping[str, float]) -> dict[str, float]:
    """The value given for each method."""
    values = scale if isinstance(scale, Mapping) else dict.fromkeys(methods, scale)
    for value in values.values() if values else [scale]:
        if isinstance(value, bool) or not isinstance(value, Real) or not _LEAST < float(value) < _MOST:
            raise InputError(f"a scale is 'own', 'shared', or a value above zero for all methods or by method; got {scale!r}")
    if methods and set(values) != set(methods):
        raise InputError(f"a scale by method has a value for each: {', '.join(methods)}; got {', '.join(values) or 'none'}")
    return {method: float(value) for method, value in values.items()}


def sheet(explanations: Sequence[Explanation], *, kind: Kinds = None, columns: int | None = None, dpi: float = 150) -> Figure:
    """A figure of explanations by the same methods, such as several targets of one photo: a row for each image of each.

    At most :data:`MOST_ROWS` rows are drawn; the caption says if there are more. The caption says how the maps are scaled.

    Raises:
        InputError: no images, explanations of different networks, methods or scales, or a size that is none.
    """
    if (columns is not None and columns < 1) or not dpi > 0:
        raise InputError(f"columns and dpi are above zero; got columns={columns}, dpi={dpi}")
    if len({(e.model, e.layer, tuple(e.maps), str(e.scaling)) for e in explanations}) > 1:
        raise InputError("a sheet has one caption: give explanations of one network, by the same methods at the same scale")
    rows, notes = _rows(explanations, kind, max(480, round(1.5 * figures.CELL * dpi)), MOST_ROWS)
    first = explanations[0]
    facts = [first.model, f"layer {first.layer}" if first.layer else "", first.reached]
    return figures.figure(rows, "  ·  ".join(part for part in (*facts, *notes) if part), columns=columns, dpi=dpi)


def _rows(explanations: Sequence[Explanation], kind: Kinds, size: int, most: int) -> tuple[list[figures.Row], list[str]]:
    """The pictures of the first ``most`` images, and what there is to say of them all."""
    total, explanations = sum(len(e) for e in explanations), compared(explanations)
    shown = [one for e in explanations for one in e[:most]][:most]
    if not shown:
        raise InputError("there is no image in this explanation, and nothing to draw")
    names = [name_of(one.source) for one in shown]
    one_photo = len(set(names)) == 1
    titles = [
        one.title() if one_photo or not name else f"{name}: {one.title()}" for name, one in zip(names, shown, strict=True)
    ]
    rows = [figures.Row(title, _cells(one, kind, size)) for title, one in zip(titles, shown, strict=True)]
    kinds = dict.fromkeys(shown[0].kind(m, kind) for m in shown[0].maps)
    notes = [names[0] if one_photo else "", str(shown[0].scaling) if any(k.ends for k in kinds) else ""]
    notes += [f"{k.key}: {k.note}" for k in kinds if k.note]
    smooth = shown[0].source.get("smooth")
    notes.append(f"{smooth['samples']} noisy copies, noise {smooth['noise']:g}" if smooth else "")
    notes.append(LIKE if shown[0].evidence is not None else "")
    notes.append(f"the first {len(rows)} of {total} rows" if total > len(rows) else "")
    notes.append(explanations[0].trouble_with_layer([without for e in explanations for without in e.without_gradcam()]))
    return rows, [note for note in notes if note]


def _cells(one: Explanation, kind: Kinds, size: int) -> list[figures.Cell]:
    """The photo and every map of one image, with the scale it is drawn at."""
    photo = one._photo(0, size)
    cells = [figures.Cell("photo" if one.photos else "input", seen(photo))]
    for method in one.maps:
        drawing, full, values, name = one.kind(method, kind), one.scale(method)[0], one.drawn(method), one.infos[method].title
        beyond = share_beyond(values, photo)
        name += f", {beyond:.0%} beyond the photo" if beyond > _MUCH_BEYOND else ""
        cell = figures.Cell(name, drawing.draw(values, full, photo), note=one.doubt(method))
        if values.any() and drawing.ends is not None:
            low, high = (significant(end * full) for end in drawing.ends)
            cell = dataclasses.replace(cell, bar=drawing.bar(), low=low, high=high)
        cells.append(cell)
    return cells
