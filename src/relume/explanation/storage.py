"""Explanations as files, and back; each output format is an entry of :data:`WRITERS`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load as load_tensors
from safetensors.torch import save

from relume.engine.coverage import Coverage, CoverageRow
from relume.errors import InputError
from relume.explanation.belief import LEVELS, Verdict
from relume.explanation.drawing import Kinds, is_drawn
from relume.explanation.quick_checks import Evidence
from relume.maps import MapInfo, Place, array, upsample
from relume.pictures.canvas import png
from relume.pictures.figure import figure_bytes
from relume.pictures.formats.table import grid_of
from relume.pictures.photo import Photo, load_photo
from relume.pictures.recording import Recording, placed
from relume.pictures.scale import Scaling
from relume.registry import Registry
from relume.targets.activation import Resolved
from relume.text import FORMAT, json_of

if TYPE_CHECKING:
    from relume.explanation.result import Explanation

__all__ = ["WRITERS", "SaveOptions", "Writer", "files", "load", "record", "written"]

RECORD, MAPS, TENSORS = "explanation.json", "maps.safetensors", "tensors.safetensors"

UNSEALED = "0" * 64

_TENSORS = ("images", "score", "scores", "target", "versus")
#: Attributes that are stored as they are, and what each may be.
_PLAIN: dict[str, Any] = {
    "layer": str | None,
    "model": str,
    "activation": str,
    "are_probabilities": bool | None,
    "labels": list | None,
    "provenance": dict,
    "layer_choice": str | None,
    "runner_up_layer": str | None,
    "batch_size": int | None,
}


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """The choices of one save.

    Attributes:
        kind: the kind of picture, for all methods or by method; what suits each map if None.
        size: the longest side of a picture in pixels; that of the photo if None.

    Example:
        >>> from relume.explanation import SaveOptions
        >>> SaveOptions(kind={"gradcam": "over"}, size=512).size
        512
    """

    kind: Kinds = None
    size: int | None = None


#: The files that one output format makes of an explanation, by name.
Writer: TypeAlias = "Callable[[Explanation, SaveOptions], dict[str, bytes]]"


# --- Writers -------------------------------------------------------------------------------------------------------------


def _pictures(explanation: Explanation, options: SaveOptions) -> dict[str, bytes]:
    """Draw ``METHOD.png`` for each method, ``METHOD.0.png`` and so on for each image of several."""
    if not is_drawn(explanation):
        return {}
    pictures: dict[str, bytes] = {}
    for i, one in enumerate(explanation):
        for key in one.maps:
            picture = one.picture(key, kind=one.kind(key, options.kind).key, size=options.size)
            pictures[f"{key}{'' if len(explanation) == 1 else f'.{i}'}.png"] = png(picture)
    return pictures


def _figure(explanation: Explanation, options: SaveOptions) -> dict[str, bytes]:
    """Draw the figure."""
    return {} if not is_drawn(explanation) else {"figure.png": figure_bytes(explanation.figure(kind=options.kind))}


def _maps(explanation: Explanation, _: SaveOptions) -> dict[str, bytes]:
    """Write the raw maps."""
    return {MAPS: _safetensors(dict(explanation.maps))}


def _tensors(explanation: Explanation, _: SaveOptions) -> dict[str, bytes]:
    """Write input, scores and target."""
    return {TENSORS: _safetensors({key: v for key in _TENSORS if (v := getattr(explanation, key)) is not None})}


def _photos(explanation: Explanation, _: SaveOptions) -> dict[str, bytes]:
    """Write the photos' files as they were; as PNG where there is no file."""
    photos = explanation.photos or ()
    return {_photo_name(explanation, i): _photo_file(photo) for i, photo in enumerate(photos)}


def _photo_file(photo: Photo | Recording) -> bytes:
    """Return a photo's file, or a recording's values in their dtype."""
    if isinstance(photo, Photo):
        return photo.content or png(photo.picture)
    return save_arrays({"values": np.ascontiguousarray(photo.values, photo.values.dtype.newbyteorder("="))})


def _grids(explanation: Explanation, _: SaveOptions) -> dict[str, bytes]:
    """Write each map on the grid of the recording that it explains, a layer's upsampled; none for photos."""
    contents: dict[str, bytes] = {}
    for i, recording in enumerate(explanation.photos or ()):
        if not isinstance(recording, Recording) or (grid := recording.grid) is None:
            continue
        for key, info in explanation.infos.items():
            values = explanation.maps[key][i : i + 1]
            values = values if info.place == "input" else upsample(values, explanation.images.shape[2:])
            name = f"{key}{'' if len(explanation) == 1 else f'.{i}'}{grid.suffix}"
            recorded = np.isfinite(recording.values).all(0)
            contents[name] = grid.write(np.where(recorded, placed(recording, array(values[0].float())), np.float32(np.nan)))
    return contents


def _record(explanation: Explanation, _: SaveOptions) -> dict[str, bytes]:
    """Write everything but the tensors."""
    record = explanation.as_dict()
    for i, photo in enumerate(record["photos"] or ()):
        photo["file"] = _photo_name(explanation, i)
    return {RECORD: json_of(record)}


#: The output formats of :meth:`Explanation.save`, each a function of an explanation and options that gives files by name.
#: ``WRITERS["csv"] = my_writer`` adds one.
WRITERS: Registry[Writer] = Registry(
    "writer",
    "relume.writers",
    {
        "pictures": _pictures,
        "figure": _figure,
        "maps": _maps,
        "tensors": _tensors,
        "photos": _photos,
        "grids": _grids,
        "record": _record,
    },
)


def files(explanation: Explanation, options: SaveOptions, *, without: Iterable[str] = ()) -> dict[str, bytes]:
    """Write an explanation in every format of :data:`WRITERS` but those ``without``; the record has a checksum of each file.

    Example:
        A format of your own:

        >>> import relume, torch
        >>> from relume.explanation import WRITERS
        >>> def highest(explanation, options):
        ...     rows = [f"{key},{float(values.max())};" for key, values in explanation.maps.items()]
        ...     return {"highest.csv": "".join(rows).encode()}
        >>> WRITERS["highest"] = highest
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
        >>> "highest.csv" in relume.explain(network, torch.rand(1, 3, 4, 4), methods=["gradient"]).files()
        True
        >>> del WRITERS["highest"]
    """
    contents: dict[str, bytes] = {}
    skipped = set(without)
    for name, write in WRITERS.items():
        contents |= {} if name in skipped else write(explanation, options)
    if RECORD in contents:
        sealed = json.loads(contents.pop(RECORD))
        sealed["files"] = {name: _sum(content) for name, content in contents.items()}
        contents[RECORD] = _sealed(sealed)
    return contents


def _safetensors(tensors: dict[str, torch.Tensor]) -> bytes:
    # a score may be a view of the scores, and what shares memory cannot be stored
    return save({key: value.cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()})


def _photo_name(explanation: Explanation, sample: int) -> str:
    """Name the file of a photo; Pillow reads it by its content."""
    number = "" if len(explanation) == 1 else f".{sample}"
    photo = explanation.photos[sample] if explanation.photos else None
    if isinstance(photo, Recording):
        return f"recording{number}.safetensors"
    content = None if photo is None else photo.content
    starts = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"RIFF": ".webp", b"II": ".tiff", b"MM": ".tiff"}
    known = (suffix for start, suffix in starts.items() if content is not None and content.startswith(start))
    return f"photo{number}{'.png' if content is None else next(known, '.image')}"


# --- The record ----------------------------------------------------------------------------------------------------------


def record(explanation: Explanation) -> dict[str, Any]:
    """Return everything but the tensors, as plain data for JSON."""
    e = explanation
    return {
        "samples": [_sample(e, i) | _maps_of(e[i]) for i in range(len(e))],
        "methods": list(e.maps),
        "maps": {key: {k: v for k, v in asdict(e.infos[key]).items() if k != "key"} for key in e.maps},
        **{key: getattr(e, key) for key in _PLAIN},
        "labels": None if e.labels is None else list(e.labels),
        "provenance": dict(e.provenance),
        "coverage": e.coverage.as_dict(),
        "input_shape": list(e.images.shape),
        "scaling": e.scaling.as_dict(),
        "strongest": dict(e.strongest),
        "belief": {key: asdict(verdict) for key, verdict in e.belief.items()},
        "photos": None if e.photos is None else [photo.as_dict() for photo in e.photos],
        "evidence": None if e.evidence is None else _evidence(e.evidence),
        "versions": {"relume": version("relume"), "torch": torch.__version__},
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    """Return plain data; None where a similarity is NaN, for which JSON has no word."""
    plain = {
        name: {m: [None if math.isnan(v) else v for v in values] for m, values in kind.items()}
        for name, kind in evidence.kinds.items()
    }
    return {"runner_up": evidence.runner_up, **plain}


def _sample(e: Explanation, i: int) -> dict[str, Any]:
    """Describe one image: its target and its highest classes."""
    index = None if e.target is None else int(e.target[i])
    probable = e.quantity == "probability"
    return {
        "target": index,
        "target_name": None if index is None else e.name(index),
        "versus": None if e.versus is None else int(e.versus[i]),
        "description": None if e.description is None else e.description[i],
        "score": float(e.score[i]),
        "top": [
            {"class": c, "name": name, "score": float(e.scores[i, c]), "probability": value if probable else None}
            for c, name, value in e.top(i)
        ],
    }


def _maps_of(one: Explanation) -> dict[str, Any]:
    """Describe each map of one image: how it is drawn, and what speaks against it."""
    return {
        "scale": {m: one.scale(m)[0] for m in one.maps},
        "empty": {m: one.empty(m)[0] for m in one.maps},
        "remark": {m: one.remark(m) for m in one.maps},
        "weaker": {m: one.weaker(m)[0] for m in one.maps},
        "verdict": {m: asdict(one.verdict(m)) for m in one.maps},
    }


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sealed(data: dict[str, Any]) -> bytes:
    """Write the record as JSON that holds its own checksum, which is taken with zeros in its place."""
    text = json_of(data | {"files": data["files"] | {RECORD: UNSEALED}})
    return _with_seal(text, UNSEALED, _sum(text))


def _with_seal(text: bytes, seal: str, other: str) -> bytes:
    entry = '"' + RECORD + '": "'
    return text.replace((entry + seal).encode(), (entry + other).encode())


# --- Reading -------------------------------------------------------------------------------------------------------------


def written(directory: Path) -> set[str]:
    """List the files that an earlier save wrote into ``directory``; none where there is no readable record of one."""
    try:
        names = json.loads((directory / RECORD).read_bytes())["files"]
        return {name for name in names if _is_plain(name) and (directory / name).is_file()}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _is_plain(name: object) -> bool:
    """Tell whether it names a file in the folder itself: what is written there may come from a stranger."""
    return isinstance(name, str) and name not in ("", "..") and Path(name).name == name and len(name) < 256


def load(directory: Path) -> dict[str, Any]:
    """Read the attributes of the explanation that was written into ``directory``.

    Raises:
        InputError: something is missing there, or is not what was written.
    """
    try:
        data = _unsealed(directory)
        photos = None if data["photos"] is None else [_photo(directory, photo, data["files"]) for photo in data["photos"]]
        maps, tensors = (load_tensors(_content(directory, name, data["files"])) for name in (MAPS, TENSORS))
        attributes = {
            "maps": {key: maps[key] for key in data["methods"]},
            "infos": {key: _info(key, data["maps"][key]) for key in data["methods"]},
            **{key: tensors.get(key) for key in _TENSORS},
            **{key: data[key] for key in _PLAIN},
            "description": _descriptions(data["samples"]),
            "coverage": Coverage(tuple(_coverage(row) for row in data["coverage"]["rectifiers"])),
            "photos": photos,
            "evidence": data["evidence"] and _read_evidence(data["evidence"]),
            "scaling": Scaling(**data["scaling"]),
            "belief": {str(m): _read_verdict(verdict) for m, verdict in data["belief"].items()},
            "strongest": {str(m): float(value) for m, value in data["strongest"].items()},
            "remarks": {m: tuple(str(sample["remark"][m]) for sample in data["samples"]) for m in data["methods"]},
        }
        _check_others(directory, data["files"])
        return _checked(attributes)
    except InputError:
        raise
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        inside = sorted(path.parent.name for path in directory.glob(f"*/{RECORD}")) if missing == RECORD else []
        instead = f"load {' or '.join(map(repr, inside[:3]))} in it" if inside else "name a folder that was saved"
        raise InputError(f"{str(directory)!r} holds no saved explanation, {missing} is missing; {instead}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise InputError(f"the explanation in {str(directory)!r} cannot be read: {error!r}; save it again") from error


def _unsealed(directory: Path) -> dict[str, Any]:
    """Read the record, which is as it was written."""
    content = (directory / RECORD).read_bytes()
    data: dict[str, Any] = json.loads(content)
    if data.get("format", FORMAT) != FORMAT:
        raise InputError(
            f"{RECORD} in {str(directory)!r} is of format {data['format']!r}, and this version of relume reads {FORMAT}; "
            "use the version that wrote it"
        )
    sums = data.get("files")
    if isinstance(sums, list):
        raise InputError(f"{str(directory)!r} was saved without checksums, by an earlier version; save it again by this one")
    if not isinstance(sums, dict) or RECORD not in sums:
        raise InputError(
            f"{RECORD} in {str(directory)!r} is not the file that was saved there, its list of checksums is missing; "
            "put that back, or save the explanation again"
        )
    seal = str(sums[RECORD])
    _check_sum(directory, RECORD, _with_seal(content, seal, UNSEALED), seal)
    return data


def _content(directory: Path, name: str, sums: Mapping[str, str]) -> bytes:
    """Read a file, which is as it was written."""
    content = (directory / name).read_bytes()
    _check_sum(directory, name, content, sums[name])
    return content


def _check_others(directory: Path, sums: Mapping[str, str]) -> None:
    """Refuse pictures that are not those saved; one that is missing is none, since people delete them to save room."""
    for name in sums:
        if name != RECORD and _is_plain(name) and (directory / name).is_file():
            _content(directory, name, sums)


def _check_sum(directory: Path, name: str, content: bytes, expected: str) -> None:
    if _sum(content) != expected:
        raise InputError(
            f"{name} in {str(directory)!r} is not the file that was saved there, its checksum is another; "
            "put that back, or save the explanation again"
        )


def _checked(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes of one explanation, which belong together."""
    if any(attributes[key] is None for key in ("images", "score", "scores")) or not attributes["maps"]:
        raise ValueError("maps, images, score or scores are missing")
    per_image = [
        *attributes["maps"].values(),
        *(attributes[key] for key in _TENSORS),
        attributes["photos"],
        attributes["description"],
    ]
    if len({len(values) for values in per_image if values is not None}) > 1:
        raise ValueError("maps, tensors and photos are of different numbers of images")
    for key, kind in _PLAIN.items():
        if not isinstance(attributes[key], kind):
            raise TypeError(f"{key} is {attributes[key]!r}")
    if attributes["activation"] not in get_args(Resolved):
        raise ValueError(f"activation is {attributes['activation']!r}")
    full = attributes["scaling"].full
    if full is not None and any(not isinstance(full[method], float) for method in attributes["maps"]):
        raise TypeError(f"scales are {full!r}")
    return attributes


def _info(key: str, info: Mapping[str, Any]) -> MapInfo:
    if info["place"] not in get_args(Place):
        raise ValueError(f"the place of {key} is {info['place']!r}")
    return MapInfo(key, str(info["title"]), info["place"], signed=bool(info["signed"]), note=str(info["note"]))


def _read_evidence(data: dict[str, Any]) -> Evidence:
    coarse, classes, edges = (
        {m: tuple(math.nan if v is None else float(v) for v in values) for m, values in data[name].items()}
        for name in ("coarse", "classes", "edges")
    )
    return Evidence(None if data["runner_up"] is None else tuple(map(int, data["runner_up"])), coarse, classes, edges)


def _read_verdict(data: Mapping[str, Any]) -> Verdict:
    if data["level"] not in LEVELS:
        raise ValueError(f"the level of a verdict is {data['level']!r}")
    return Verdict(data["level"], str(data["text"]))


def _descriptions(samples: Sequence[Mapping[str, Any]]) -> tuple[str, ...] | None:
    words = [sample["description"] for sample in samples]
    return None if None in words else tuple(map(str, words))


def _coverage(row: dict[str, Any]) -> CoverageRow:
    return CoverageRow(str(row["kind"]), int(row["ran"]), bool(row["guided"]), str(row["why"]), tuple(map(str, row["places"])))


def _photo(directory: Path, data: dict[str, Any], sums: Mapping[str, str]) -> Photo | Recording:
    if not _is_plain(data["file"]):
        raise ValueError(f"a photo lies beside its record; got {data['file']!r}")
    content = _content(directory, data["file"], sums)
    if "kind" in data:
        return _recording(load_arrays(content)["values"], data)
    photo = load_photo(directory / data["file"])
    left, top, right, bottom = map(float, data["box"])
    if not (-math.inf < left < right < math.inf and -math.inf < top < bottom < math.inf):
        raise ValueError(f"the box of a photo is left, top, right and bottom; got {data['box']}")
    notes = tuple(map(str, data["notes"]))  # those of a picture, which is stored as a file of its own making
    return Photo(photo.picture, (left, top, right, bottom), int(data["orientation"]), photo.content, notes)


def _recording(values: NDArray[Any], data: dict[str, Any]) -> Recording:
    box = tuple((float(low), float(high)) for low, high in data["box"])
    if len(box) != values.ndim - 1 or not all(-math.inf < low < high < math.inf for low, high in box):
        raise ValueError(f"the box of a recording is start and end along each axis; got {data['box']}")
    low, high = map(float, data["limits"] or (0, 0))
    return Recording(
        values,
        data["kind"],
        spacing=tuple(map(float, data["spacing"])),
        unit=str(data["unit"]),
        box=box,
        shown=tuple(map(int, data["shown"])),
        limits=None if data["limits"] is None else (low, high),
        grid=None if data["grid"] is None else grid_of(data["grid"]),
        notes=tuple(map(str, data["notes"])),
        bands=tuple(map(int, data["bands"])),
    )
