"""The columns of a run's rows: their schema, the row of an explanation, and the explanation that a row holds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from torch.nn import functional as F

from relume.datasets.codes import Code, decode, encode
from relume.datasets.request import RunRequest
from relume.engine.coverage import Coverage
from relume.errors import InputError
from relume.explanation.belief import LEVELS, UNCALIBRATED, Level, Verdict, unguided
from relume.explanation.calibration import Calibration
from relume.explanation.drawing import is_drawn
from relume.explanation.quick_checks import Evidence
from relume.explanation.result import Explanation
from relume.maps import MapInfo, array
from relume.measures.localisation import MEASURES, Truth, measure
from relume.pictures.canvas import jpeg
from relume.pictures.kinds import over
from relume.pictures.photo import Photo
from relume.pictures.scale import scale_of
from relume.text import FORMAT

if TYPE_CHECKING:
    from torch import Tensor

    from relume.pictures.recording import Recording

__all__ = ["FORMAT", "METADATA", "THUMBNAIL", "explanation_of", "maps_of", "row_of", "schema_of"]

#: The key of the schema's metadata: JSON of the format, and of each map's description, column and code.
METADATA = b"relume"

#: The longest side of a thumbnail, in pixels.
THUMBNAIL = 96

Values: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

_SIZES, _NUMBERS = pa.list_(pa.int32()), pa.list_(pa.float32())

#: The columns of every run. An item that could not be explained has the first three and the last; the others are null.
_COLUMNS: Mapping[str, pa.DataType] = {
    "id": pa.string(),
    "path": pa.string(),
    "label": pa.string(),
    "target": pa.int32(),  # the class explained; null if none is
    "class_name": pa.string(),
    "versus": pa.int32(),  # the class that it is contrasted with
    "description": pa.string(),  # what is explained, where these classes do not say it
    "score": pa.float32(),
    "probability": pa.float32(),  # of the class explained; null where scores are no probabilities
    "top_classes": _SIZES,
    "top_names": pa.list_(pa.string()),
    "top_scores": _NUMBERS,
    "top_probabilities": _NUMBERS,
    "runner_up": pa.int32(),  # the class that maps are compared with
    "layer": pa.string(),
    "guided": pa.int32(),
    "unguided": pa.int32(),
    "input_shape": _SIZES,
    "error": pa.string(),
}

#: The columns of every map, after its key and ``_``; measures by their keys follow where there are masks.
_OF_MAP: Mapping[str, pa.DataType] = {
    "empty": pa.bool_(),
    "remark": pa.string(),
    "verdict": pa.string(),  # its level: see relume.explanation.Verdict
    "edge_similarity": pa.float32(),
    "class_similarity": pa.float32(),
    "thumbnail": pa.binary(),  # a JPEG of the map over the photo
}

#: The column of a map that has the size of the input, by what is kept of it, and its code.
_STORES: Mapping[str, tuple[str | None, Code]] = {
    "facts": (None, "float32"),
    "saliency": ("saliency", "positive_sixth_root"),
    "maps": ("map", "sixth_root"),
}

#: The columns of a map that is kept, after its own. A list of numbers would be a quarter larger than bytes.
_OF_KEPT: Mapping[str, pa.DataType] = {"scale": pa.float32(), "shape": _SIZES}


def schema_of(request: RunRequest) -> pa.Schema:
    """Return the schema of a run's rows.

    Raises:
        InputError: the keys of two methods make columns of one name.

    Example:
        >>> from relume.datasets.columns import schema_of
        >>> from relume.datasets.request import RunRequest
        >>> schema = schema_of(RunRequest(methods=["guided_backprop"], store="maps"))
        >>> schema.names[-3:]
        ['guided_backprop_map', 'guided_backprop_scale', 'guided_backprop_shape']
    """
    columns, kept = [*_COLUMNS.items()], _kept(request)
    for key in request.infos:
        columns += [(f"{key}_{name}", kind) for name, kind in _OF_MAP.items()]
        columns += [(f"{key}_{name}", pa.float64()) for name in MEASURES if request.masks]
        if kept[key]["column"]:
            columns += [(kept[key]["column"], pa.binary()), *((f"{key}_{name}", kind) for name, kind in _OF_KEPT.items())]
    names = [name for name, _ in columns]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two methods make a column {twice!r}; give one of them another key")
    return pa.schema(columns, {METADATA: json.dumps({"format": FORMAT, "maps": kept})})


def _kept(request: RunRequest) -> dict[str, dict[str, Any]]:
    """Describe each map and how it is kept, and whether maps for two classes are compared as ``coarse`` as their layer."""
    kept, is_coarse = {}, request.options.get("evidence", "quick") == "quick"
    for key, info in request.infos.items():
        name, code = _STORES[request.store] if info.place == "input" else ("map", "float32")
        code = "float32" if request.exact else code
        kept[key] = asdict(info) | {"column": name and f"{key}_{name}", "code": code, "coarse": is_coarse}
    return kept


def maps_of(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """Return the description of each map of a run, with its ``column`` and ``code``, from the schema of its rows."""
    maps: dict[str, dict[str, Any]] = json.loads(schema.metadata[METADATA])["maps"]
    return maps


# --- From an explanation to a row ----------------------------------------------------------------------------------------


def row_of(one: Explanation, request: RunRequest, truth: Truth | None = None) -> dict[str, Any]:
    """Return the row of one image's explanation, without the columns of the manifest; its tensors are on the CPU."""
    target = None if one.target is None else int(one.target[0])
    versus, described, top, probabilities = one.versus, one.description, one.top(), one.probabilities()
    evidence, kept = one.evidence, _kept(request)
    row = {
        "target": target,
        "class_name": None if target is None else one.name(target),
        "versus": None if versus is None else int(versus[0]),
        "description": None if described is None else described[0],
        "score": float(one.score[0]),
        "probability": None if probabilities is None or target is None else float(probabilities[target]),
        "top_classes": [index for index, _, _ in top],
        "top_names": [name for _, name, _ in top],
        "top_scores": [float(one.scores[0, index]) for index, _, _ in top],
        "top_probabilities": None if probabilities is None else [value for _, _, value in top],
        "runner_up": None if evidence is None or evidence.runner_up is None else evidence.runner_up[0],
        "layer": one.layer,
        "guided": one.coverage.guided,
        "unguided": one.coverage.unguided,
        "input_shape": [*one.images.shape[1:]],
    }
    drawn = _with_small_photo(one)
    for key in one.maps:
        values = array(one[key][0])  # NumPy from here on: torch would share out small work among threads
        heat = np.abs(values).max(0) if one.infos[key].place == "input" else np.abs(values)
        of_map = _facts_of_map(one, key) | {"empty": not heat.any(), "thumbnail": _thumbnail(drawn, key, heat)}
        of_map |= _kept_map(key, {"saliency": heat, "map": values}, kept[key])
        if truth is not None:
            measures = measure(array(one.saliency(key)[0].double()), truth)
            of_map |= {name: _defined(value) for name, value in measures.items()}
        row |= {f"{key}_{name}": value for name, value in of_map.items()}
    return row


def _facts_of_map(one: Explanation, key: str) -> dict[str, Any]:
    """Return what is known of one map."""
    evidence = one.evidence or Evidence(None, {}, {}, {})
    classes = evidence.classes or evidence.coarse
    return {
        "remark": one.remark(key) or None,
        "verdict": one.verdict(key).level,
        "edge_similarity": _defined(*evidence.edges.get(key, (None,))),
        "class_similarity": _defined(*classes.get(key, (None,))),
    }


def _defined(value: float | None) -> float | None:
    """Return None in place of NaN, which tools sort in different ways."""
    return None if value is None or math.isnan(value) else value


def _kept_map(key: str, forms: Mapping[str, Values], kept: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a map that is kept, in one of its forms; none if it is not kept."""
    if kept["column"] is None:
        return {}
    values = forms[name := kept["column"].removeprefix(f"{key}_")]
    content, scale = encode(torch.from_numpy(values), kept["code"])
    return {name: content, "scale": scale, "shape": [*values.shape]}


def _with_small_photo(one: Explanation) -> Explanation:
    """Return the explanation with its photo made as small as a thumbnail, once for all maps."""
    photos = [photo.fitted(THUMBNAIL) if isinstance(photo, Photo) else photo for photo in one.photos or ()]
    return replace(one, photos=photos or None)


def _thumbnail(one: Explanation, key: str, heat: Values) -> bytes | None:
    """Draw one map over the photo, small; None where inputs of this shape are not drawn."""
    photo = one.photos[0] if one.photos else None
    if isinstance(photo, Photo):
        return jpeg(over(_fewer(heat, photo), scale_of(heat), photo))
    return jpeg(one.picture(key, size=THUMBNAIL)) if is_drawn(one) else None


def _fewer(heat: Values, photo: Photo) -> Values:
    """Return the highest values in blocks of ``heat``, about as many blocks as the photo has pixels."""
    left, top, right, bottom = photo.box
    block = [max(1, round(n / side)) for n, side in zip(heat.shape, (bottom - top, right - left), strict=True)]
    return array(F.max_pool2d(torch.from_numpy(heat)[None], block, ceil_mode=True)[0])


# --- From a row to an explanation ----------------------------------------------------------------------------------------


def explanation_of(
    row: Mapping[str, Any],
    maps: Mapping[str, Mapping[str, Any]],
    known: Mapping[str, Any],
    loaded: tuple[Photo | Recording, Tensor] | None,
    calibration: Calibration | None = None,
) -> Explanation:
    """Return the explanation that a row holds, of the maps that are kept.

    A run keeps the scores of five classes; all others get the score of a class that is impossible, 0 as a probability and -∞
    otherwise. A saliency is a map of one channel. Coverage has no more than the counts.

    Args:
        row: the row, by column.
        maps: what :func:`maps_of` returns.
        known: further attributes of the explanation, such as ``model`` and ``labels``.
        loaded: the photo and the network's input, if they could be read; an input of zeros stands for it otherwise.
        calibration: that of the run, for the sentences of its verdicts.
    """
    stored = {key: _stored_map(row, key, kept) for key, kept in maps.items() if kept["column"]}
    infos = {key: _stored_info(key, maps[key]) for key in stored}
    scores, are_probabilities = _stored_scores(row, len(known.get("labels") or ()))
    coverage = _stored_coverage(row)
    of_class = {name: None if row[name] is None else torch.tensor([row[name]]) for name in ("target", "versus")}
    return Explanation(
        maps=stored,
        infos=infos,
        images=torch.zeros(1, *row["input_shape"]) if loaded is None else loaded[1][None],
        photos=None if loaded is None else [loaded[0]],
        score=torch.tensor([row["score"]]),
        scores=scores,
        are_probabilities=are_probabilities,
        coverage=coverage,
        layer=row["layer"],
        description=None if row["description"] is None else (row["description"],),
        evidence=_stored_evidence(row, {key: maps[key] for key in stored}),
        remarks={key: (row[f"{key}_remark"] or "",) for key in stored},
        belief={key: _stored_verdict(row[f"{key}_verdict"], info, coverage, calibration) for key, info in infos.items()},
        **of_class,  # type: ignore[arg-type]
        **known,
    )


def _stored_coverage(row: Mapping[str, Any]) -> Coverage:
    counts = {("rectifier", True, ""): row["guided"], ("rectifier", False, "the run does not say why"): row["unguided"]}
    return Coverage.of({kind: count for kind, count in counts.items() if count}, {})


def _stored_verdict(level: Level, info: MapInfo, coverage: Coverage, calibration: Calibration | None) -> Verdict:
    """Return the verdict of a level, with the numbers that it rests on if the run keeps its calibration."""
    if level == "unguided":
        return unguided(coverage)
    if level not in ("points", "partly", "edges"):
        return UNCALIBRATED  # a map that shows nothing is judged by itself
    if calibration is None:
        return Verdict(level, f"{LEVELS[level].capitalize()}, by the calibration that run.json names.")
    return calibration.verdict(info.key)


def _stored_map(row: Mapping[str, Any], key: str, kept: Mapping[str, Any]) -> Tensor:
    values = decode(row[kept["column"]], row[f"{key}_scale"], row[f"{key}_shape"], kept["code"])
    return values[None, None] if kept["column"] == f"{key}_saliency" else values[None]


def _stored_info(key: str, kept: Mapping[str, Any]) -> MapInfo:
    is_saliency = kept["column"] == f"{key}_saliency"
    note = "; ".join(words for words in (kept["note"], "the saliency is kept, not the map" if is_saliency else "") if words)
    return MapInfo(key, kept["title"], kept["place"], signed=kept["signed"] and not is_saliency, note=note)


def _stored_scores(row: Mapping[str, Any], classes: int) -> tuple[Tensor, bool | None]:
    """Return the scores ``(1, classes)``, and True if they are probabilities; the score alone where there are no classes."""
    indices: Sequence[int] = row["top_classes"]
    if not indices:
        return torch.tensor([row["score"]]), None
    probable = row["top_probabilities"] is not None
    count = max(classes, 1 + max(*indices, row["target"] or 0))
    scores = torch.full((1, count), 0.0 if probable else -math.inf)
    scores[0, list(indices)] = torch.tensor(row["top_probabilities"] if probable else row["top_scores"])
    known = row["probability"] if probable else row["score"] if row["versus"] is row["description"] is None else None
    if row["target"] is not None and known is not None:
        scores[0, row["target"]] = known
    return scores, True if probable else None


def _stored_evidence(row: Mapping[str, Any], maps: Mapping[str, Mapping[str, Any]]) -> Evidence | None:
    edges, classes = (
        {key: (value,) for key in maps if (value := row[f"{key}_{name}_similarity"]) is not None} for name in ("edge", "class")
    )
    coarse, runner_up = any(kept["coarse"] for kept in maps.values()), row["runner_up"]
    similar = (classes, {}) if coarse else ({}, classes)
    return Evidence(None if runner_up is None else (runner_up,), *similar, edges) if edges or classes else None
