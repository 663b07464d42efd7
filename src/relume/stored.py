"""An answer as files, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save

from relume import render
from relume.answer import Answer, Coverage, CoverageRow
from relume.errors import InputError
from relume.image import Photo, load_photo

__all__ = ["facts", "files", "load", "written"]

FACTS, MAPS, TENSORS = "explanation.json", "maps.safetensors", "tensors.safetensors"

_TENSORS = ("images", "score", "scores", "target", "versus")
_WORDS = ("layer", "model", "multilabel", "unit", "labels", "source")


def facts(answer: Answer) -> dict[str, Any]:
    """Everything but the tensors, as plain data for JSON."""
    scales = {m: answer.scale(m) for m in answer.maps}
    scaling = answer.scaling
    return {
        "samples": [_sample(answer, i) | {"scale": {m: scales[m][i] for m in scales}} for i in range(len(answer))],
        "methods": list(answer.maps),
        "layer": answer.layer,
        "model": answer.model,
        "multilabel": answer.multilabel,
        "unit": answer.unit,
        "coverage": answer.coverage.as_dict(),
        "input_shape": list(answer.images.shape),
        "scaling": {"percentile": scaling.percentile, "full": scaling.full and dict(scaling.full), "origin": scaling.origin},
        "photos": None if answer.photos is None else [photo.as_dict() for photo in answer.photos],
        "labels": None if answer.labels is None else list(answer.labels),
        "source": dict(answer.source),
        "versions": {"relume": version("relume"), "torch": torch.__version__},
    }


def _sample(answer: Answer, i: int) -> dict[str, Any]:
    """What there is to say of one image."""
    index = None if answer.target is None else int(answer.target[i])
    return {
        "target": index,
        "target_name": None if index is None else answer.name(index),
        "versus": None if answer.versus is None else int(answer.versus[i]),
        "score": float(answer.score[i]),
        "top": [{"class": c, "name": n, "probability": p} for c, n, p in answer.top(i)],
    }


def files(answer: Answer, pictures: Sequence[str]) -> dict[str, bytes]:
    """The raw maps, tensors, photos and facts as files; the facts list these and ``pictures``, to tell them from others'."""
    stored = {
        MAPS: _tensors(dict(answer.maps)),
        TENSORS: _tensors({key: value for key in _TENSORS if (value := getattr(answer, key)) is not None}),
    }
    found = facts(answer)
    for i, photo in enumerate(answer.photos or ()):
        name = f"photo{'' if len(answer) == 1 else f'.{i}'}{_suffix(photo)}"
        stored[name] = render.png(photo.picture) if photo.content is None else photo.content
        found["photos"][i]["file"] = name
    found["files"] = [*pictures, *stored, FACTS]
    return stored | {FACTS: (json.dumps(found, indent=2, ensure_ascii=False) + "\n").encode()}


def _tensors(tensors: dict[str, torch.Tensor]) -> bytes:
    return save({key: value.contiguous().cpu() for key, value in tensors.items()})


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
        return {name for name in names if isinstance(name, str) and Path(name).name == name}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def load(directory: Path) -> dict[str, Any]:
    """The fields of the answer that was written into ``directory``.

    Raises:
        InputError: something is missing there, or is not what was written.
    """
    try:
        found = json.loads((directory / FACTS).read_bytes())
        photos = found["photos"] and [_photo(directory, photo) for photo in found["photos"]]
        maps, tensors = (load_tensors((directory / name).read_bytes()) for name in (MAPS, TENSORS))
        return {
            "maps": {method: maps[method] for method in found["methods"]},
            **{key: tensors.get(key) for key in _TENSORS},
            **{key: found[key] for key in _WORDS},
            "coverage": Coverage(tuple(_coverage(row) for row in found["coverage"]["rectifiers"])),
            "photos": photos,
            "scaling": render.Scaling(**found["scaling"]),
        }
    except InputError:
        raise
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise InputError(
            f"{str(directory)!r} holds no saved explanation, {missing} is missing; name a folder that was saved"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise InputError(f"the explanation in {str(directory)!r} cannot be read: {error!r}; save it again") from error


def _coverage(row: dict[str, Any]) -> CoverageRow:
    return CoverageRow(row["kind"], row["ran"], row["guided"], row["why"])


def _photo(directory: Path, known: dict[str, Any]) -> Photo:
    photo = load_photo(directory / known["file"])
    left, top, right, bottom = known["box"]
    return Photo(photo.picture, (left, top, right, bottom), known["orientation"], photo.content)
