"""Explanations as pictures: the ground of each image, and its maps drawn on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from PIL import Image

from relume.errors import InputError
from relume.maps import array
from relume.pictures.ground import Ground, ground_of
from relume.pictures.kinds import KINDS, Kind, default_kind
from relume.pictures.montage import DrawnMap
from relume.pictures.photo import Photo, as_photo
from relume.pictures.preprocessing import Preprocessing, check_same
from relume.pictures.recording import Recording

if TYPE_CHECKING:
    from relume.explanation.result import Explanation

__all__ = ["Kinds", "drawn_map", "framed", "ground_at", "is_drawn", "kind_for"]

#: A kind of picture for every method, or for each; None for what suits the map.
Kinds: TypeAlias = str | Mapping[str, str] | None


def framed(
    e: Explanation, photos: Sequence[str | Path | Image.Image | Photo | Recording], preprocessing: Preprocessing
) -> list[Photo | Recording]:
    """Return photos with the part that the network saw; recordings know theirs. Errors are those of ``with_photos``."""
    if not isinstance(photos, list | tuple) or len(photos) != len(e):
        given = len(photos) if isinstance(photos, list | tuple) else f"a {type(photos).__name__}"
        raise InputError(f"photos are a list, one for each of {len(e)} images; got {given}")
    recordings = [photo for photo in photos if isinstance(photo, Recording)]
    if recordings:
        axes = e.images.ndim - 2
        if len(recordings) < len(photos) or any(len(recording.size) != axes for recording in recordings):
            kinds = ", ".join(dict.fromkeys(getattr(photo, "kind", "photo") for photo in photos))
            raise InputError(f"images of {axes} spatial axes are drawn on recordings with as many, all of them; got {kinds}")
        return [*recordings]
    frames = [preprocessing.frame(as_photo(photo)) for photo in photos if not isinstance(photo, Recording)]
    for i, photo in enumerate(frames):
        check_same(preprocessing.view(photo.picture), e.images[i], i)
    return [*frames]


def is_drawn(e: Explanation) -> bool:
    """Tell whether there is a way to draw inputs of this shape."""
    return 3 <= e.images.ndim <= 5


def ground_at(e: Explanation, sample: int) -> Ground:
    """Return the photo or the recording of one image; its input if there is neither.

    Raises:
        InputError: an input without spatial axes, or with more than three.
    """
    return e.photos[sample] if e.photos else ground_of(array(e.images[sample].float()))


def kind_for(e: Explanation, method: str, kind: Kinds) -> Kind:
    """Return the kind of picture of one method: the one given, or what suits the map and its ground."""
    if isinstance(kind, Mapping) and not set(kind) <= set(e.maps):
        raise InputError(f"kinds are for methods of this explanation, {', '.join(e.maps)}; got {', '.join(kind)}")
    key = kind.get(method) if isinstance(kind, Mapping) else kind
    if key is not None:
        return KINDS[key]
    photo = e.photos[0] if e.photos else None
    bare = {3: "signal", 5: "volume"}.get(e.images.ndim, "photo")
    return default_kind(e.infos[method], photo.kind if isinstance(photo, Recording) else "photo" if photo else bare)  # type: ignore[arg-type]


def drawn_map(one: Explanation, method: str, kind: Kinds = None) -> DrawnMap:
    """Return the first image's map by one method with its kind and its scale."""
    values = one[method] if one.infos[method].place == "input" else one.saliency(method)
    return DrawnMap(kind_for(one, method, kind), array(values[0].float()), one.scale(method)[0])
