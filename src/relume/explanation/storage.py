"""An answer as files, and back."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save

from relume.engine.coverage import Coverage, CoverageRow
from relume.errors import InputError
from relume.explanation.answer import Answer
from relume.explanation.quick_checks import Evidence
from relume.maps import MapInfo, Place
from relume.pictures.canvas import png
from relume.pictures.photo import Photo, load_photo
from relume.pictures.scale import Scaling
from relume.targets.activation import Resolved
from relume.text import encoded

__all__ = ["facts", "files", "load", "written"]

FACTS, MAPS, TENSORS = "explanation.json", "maps.safetensors", "tensors.safetensors"

UNSEALED = "0" * 64

_TENSORS = ("images", "score", "scores", "target", "versus")
_WORDS = ("layer", "model", "activation", "are_probabilities", "unit", "labels", "source")


def facts(answer: Answer) -> dict[str, Any]:
    """Everything but the tensors, as plain data for JSON."""
    return {
        "samples": [_sample(answer, i) | _maps_of(answer, i) for i in range(len(answer))],
        "methods": list(answer.maps),
        "maps": {key: {"title": info.title, "place": info.place, "signed": info.signed} for key, info in answer.infos.items()},
        "layer": answer.layer,
        "model": answer.model,
        "activation": answer.activation,
        "are_probabilities": answer.are_probabilities,
        "unit": answer.unit,
        "coverage": answer.coverage.as_dict(),
        "input_shape": list(answer.images.shape),
        "scaling": answer.scaling.as_dict(),
        "strongest": dict(answer.strongest),
        "photos": None if answer.photos is None else [photo.as_dict() for photo in answer.photos],
        "evidence": None if answer.evidence is None else _evidence(answer.evidence),
        "labels": None if answer.labels is None else list(answer.labels),
        "source": dict(answer.source),
        "versions": {"relume": version("relume"), "torch": torch.__version__},
    }


def _evidence(evidence: Evidence) -> dict[str, Any]:
    """Plain data; None where there is no number, for which JSON has no word."""
    kinds = {"classes": evidence.classes, "edges": evidence.edges}
    known = {
        key: {m: [None if math.isnan(v) else v for v in values] for m, values in kind.items()} for key, kind in kinds.items()
    }
    return {"runner_up": evidence.runner_up, **known}


def _read_evidence(found: dict[str, Any]) -> Evidence:
    classes, edges = (
        {m: tuple(math.nan if v is None else float(v) for v in values) for m, values in found[key].items()}
        for key in ("classes", "edges")
    )
    return Evidence(None if found["runner_up"] is None else tuple(map(int, found["runner_up"])), classes, edges)


def _sample(answer: Answer, i: int) -> dict[str, Any]:
    """What there is to say of one image."""
    index = None if answer.target is None else int(answer.target[i])
    return {
        "target": index,
        "target_name": None if index is None else answer.name(index),
        "versus": None if answer.versus is None else int(answer.versus[i]),
        "score": float(answer.score[i]),
        "top": _top(answer, i),
    }


def _top(answer: Answer, i: int) -> list[dict[str, Any]]:
    probable = answer.quantity == "probability"
    return [
        {"class": c, "name": name, "score": float(answer.scores[i, c]), "probability": value if probable else None}
        for c, name, value in answer.top(i)
    ]


def _maps_of(answer: Answer, i: int) -> dict[str, Any]:
    """Say of each map of one image, by method, how it is drawn and what speaks against it."""
    one = answer[i]
    return {
        "scale": {m: one.scale(m)[0] for m in one.maps},
        "empty": {m: one.empty(m)[0] for m in one.maps},
        "remark": {m: one.remark(m) for m in one.maps},
        "weaker": {m: one.weaker(m)[0] for m in one.maps},
    }


def files(answer: Answer, pictures: Mapping[str, bytes]) -> dict[str, bytes]:
    """The raw maps, tensors, photos and facts as files; the facts list these and ``pictures``, each with its checksum."""
    stored = {
        MAPS: _tensors(dict(answer.maps)),
        TENSORS: _tensors({key: value for key in _TENSORS if (value := getattr(answer, key)) is not None}),
    }
    found = facts(answer)
    for i, photo in enumerate(answer.photos or ()):
        name = f"photo{'' if len(answer) == 1 else f'.{i}'}{_suffix(photo)}"
        stored[name] = png(photo.picture) if photo.content is None else photo.content
        found["photos"][i]["file"] = name
    found["files"] = {name: _sum(content) for name, content in {**pictures, **stored}.items()}
    return stored | {FACTS: _sealed(found)}


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sealed(found: dict[str, Any]) -> bytes:
    """Return the facts as JSON that holds its own checksum, which is taken with zeros in its place."""
    listed = found | {"files": found["files"] | {FACTS: UNSEALED}}
    text = encoded(json.dumps(listed, indent=2, ensure_ascii=False, default=str) + "\n")
    return _with_seal(text, UNSEALED, _sum(text))


def _with_seal(text: bytes, seal: str, other: str) -> bytes:
    entry = '"' + FACTS + '": "'
    return text.replace((entry + seal).encode(), (entry + other).encode())


def _tensors(tensors: dict[str, torch.Tensor]) -> bytes:
    # a score may be a view of the scores, and what shares memory cannot be stored
    return save({key: value.cpu().clone(memory_format=torch.contiguous_format) for key, value in tensors.items()})


def _suffix(photo: Photo) -> str:
    """How the name of the photo's file ends; Pillow reads it by its content."""
    if photo.content is None:
        return ".png"
    starts = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"RIFF": ".webp", b"II": ".tiff", b"MM": ".tiff"}
    return next((suffix for start, suffix in starts.items() if photo.content.startswith(start)), ".image")


def written(directory: Path) -> set[str]:
    """The files that an earlier save wrote into ``directory``; none where there are no readable facts of one."""
    try:
        names = json.loads((directory / FACTS).read_bytes())["files"]
        return {name for name in names if _is_plain(name) and (directory / name).is_file()}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _is_plain(name: object) -> bool:
    """Whether it names a file in the folder itself: what is written there may come from a stranger."""
    return isinstance(name, str) and name not in ("", "..") and Path(name).name == name and len(name) < 256


def load(directory: Path) -> dict[str, Any]:
    """The fields of the answer that was written into ``directory``.

    Raises:
        InputError: something is missing there, or is not what was written.
    """
    try:
        found = _unsealed(directory)
        photos = None if found["photos"] is None else [_photo(directory, photo, found["files"]) for photo in found["photos"]]
        maps, tensors = (load_tensors(_content(directory, name, found["files"])) for name in (MAPS, TENSORS))
        fields = {
            "maps": {method: maps[method] for method in found["methods"]},
            **{key: tensors.get(key) for key in _TENSORS},
            **{key: found[key] for key in _WORDS},
            "coverage": Coverage(tuple(_coverage(row) for row in found["coverage"]["rectifiers"])),
            "photos": photos,
            "evidence": found["evidence"] and _read_evidence(found["evidence"]),
            "scaling": Scaling(**found["scaling"]),
            "infos": {m: _info(m, found["maps"][m]) for m in found["methods"]},
            "strongest": {str(m): float(value) for m, value in found.get("strongest", {}).items()},
            "remarks": {m: tuple(str(sample["remark"][m]) for sample in found["samples"]) for m in found["methods"]},
        }
        _check_others(directory, found["files"])
        return _checked(fields)
    except InputError:
        raise
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        inside = sorted(path.parent.name for path in directory.glob(f"*/{FACTS}")) if missing == FACTS else []
        instead = f"load {' or '.join(map(repr, inside[:3]))} in it" if inside else "name a folder that was saved"
        raise InputError(f"{str(directory)!r} holds no saved explanation, {missing} is missing; {instead}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise InputError(f"the explanation in {str(directory)!r} cannot be read: {error!r}; save it again") from error


def _unsealed(directory: Path) -> dict[str, Any]:
    """Return the facts, which are as they were written."""
    content = (directory / FACTS).read_bytes()
    found: dict[str, Any] = json.loads(content)
    sums = found.get("files")
    if isinstance(sums, list):
        raise InputError(f"{str(directory)!r} was saved without checksums, by an earlier version; save it again by this one")
    if not isinstance(sums, dict) or FACTS not in sums:
        raise InputError(
            f"{FACTS} in {str(directory)!r} is not the file that was saved there, its list of checksums is missing; "
            "put that back, or save the explanation again"
        )
    seal = str(sums[FACTS])
    _check_sum(directory, FACTS, _with_seal(content, seal, UNSEALED), seal)
    return found


def _content(directory: Path, name: str, sums: Mapping[str, str]) -> bytes:
    """Return what is in a file, which is as it was written."""
    content = (directory / name).read_bytes()
    _check_sum(directory, name, content, sums[name])
    return content


def _check_others(directory: Path, sums: Mapping[str, str]) -> None:
    """Refuse pictures that are not those saved; one that is missing is none, since people delete them to save room."""
    for name in sums:
        if name != FACTS and _is_plain(name) and (directory / name).is_file():
            _content(directory, name, sums)


def _check_sum(directory: Path, name: str, content: bytes, expected: str) -> None:
    if _sum(content) != expected:
        raise InputError(
            f"{name} in {str(directory)!r} is not the file that was saved there, its checksum is another; "
            "put that back, or save the explanation again"
        )


def _checked(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of one answer, that belong together."""
    if any(fields[key] is None for key in ("images", "score", "scores")) or not fields["maps"]:
        raise ValueError("maps, images, score or scores are missing")
    per_image = [*fields["maps"].values(), *(fields[key] for key in _TENSORS), fields["photos"]]
    if len({len(values) for values in per_image if values is not None}) > 1:
        raise ValueError("maps, tensors and photos are of different numbers of images")
    kinds: dict[str, Any] = {"model": str, "source": dict, "labels": list | None, "layer": str | None}
    kinds["are_probabilities"] = bool | None
    for key, kind in kinds.items():
        if not isinstance(fields[key], kind):
            raise TypeError(f"{key} is {fields[key]!r}")
    if fields["activation"] not in get_args(Resolved):
        raise ValueError(f"activation is {fields['activation']!r}")
    full = fields["scaling"].full
    if full is not None and any(not isinstance(full[method], float) for method in fields["maps"]):
        raise TypeError(f"scales are {full!r}")
    return fields


def _info(key: str, info: dict[str, Any]) -> MapInfo:
    if info["place"] not in get_args(Place):
        raise ValueError(f"the place of {key} is {info['place']!r}")
    return MapInfo(key, str(info["title"]), info["place"], bool(info["signed"]))


def _coverage(row: dict[str, Any]) -> CoverageRow:
    return CoverageRow(str(row["kind"]), int(row["ran"]), bool(row["guided"]), str(row["why"]))


def _photo(directory: Path, known: dict[str, Any], sums: Mapping[str, str]) -> Photo:
    if not _is_plain(known["file"]):
        raise ValueError(f"a photo lies beside its facts; got {known['file']!r}")
    _content(directory, known["file"], sums)
    photo = load_photo(directory / known["file"])
    left, top, right, bottom = map(float, known["box"])
    if not (-math.inf < left < right < math.inf and -math.inf < top < bottom < math.inf):
        raise ValueError(f"the box of a photo is left, top, right and bottom; got {known['box']}")
    notes = tuple(map(str, known["notes"]))  # those of a picture, which is stored as a file of its own making
    return Photo(photo.picture, (left, top, right, bottom), int(known["orientation"]), photo.content, notes)
