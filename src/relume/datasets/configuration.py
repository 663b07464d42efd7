"""The configuration of a run: everything that its rows depend on, as it stands in ``run.json``, and compared with another."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from relume.engine.weights import weights_hash
from relume.errors import InputError
from relume.text import encoded

if TYPE_CHECKING:
    from relume.datasets.request import RunRequest
    from relume.models.opened import Opened

__all__ = ["check_same", "configuration_of", "differences", "digest_of", "versions"]

_LIBRARIES = ("relume", "torch", "numpy", "pillow", "pyarrow")


def configuration_of(opened: Opened, request: RunRequest, **more: Any) -> dict[str, Any]:
    """Return plain data that is equal for runs whose rows are equal up to rounding: no device, batch size or shard is in it."""
    configuration = {
        "model": opened.name,
        "weights": weights_hash(opened.model),
        "preprocessing": opened.preprocessing.as_dict(),
        "recordings": opened.recordings.as_dict(),
        "shown": opened.shown,
        "output": None if opened.output is None else str(opened.output),
        "activation": opened.activation,
        "dtype": None if opened.dtype is None else str(opened.dtype),
        "labels": digest_of(list(opened.labels or ())),
        "request": request.as_dict(),
        **more,
    }
    plain: dict[str, Any] = json.loads(json.dumps(configuration))
    return plain


def digest_of(data: Any) -> str:
    """Return the SHA-256 of plain data as JSON."""
    return hashlib.sha256(encoded(json.dumps(data, sort_keys=True))).hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that a row may depend on."""
    return {"python": platform.python_version(), **{library: version(library) for library in _LIBRARIES}}


def check_same(folder: object, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a run by another configuration.

    Raises:
        InputError: they differ; the message says where.

    Example:
        >>> from relume.datasets.configuration import check_same
        >>> check_same("RUN", {"request": {"store": "maps"}}, {"request": {"store": "facts"}})
        Traceback (most recent call last):
        relume.errors.InputError: 'RUN' was begun otherwise: request.store was 'maps' and is 'facts'; give what it was begun
        with, or another folder
    """
    if found := differences(before, now):
        raise InputError(
            f"{str(folder)!r} was begun otherwise: {', '.join(found)}; give what it was begun with, or another folder"
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what differs between two configurations, ``request.store was 'maps' and is 'facts'``."""
    flat_before, flat_now = dict(_flat(before)), dict(_flat(now))
    keys = [key for key in {**flat_before, **flat_now} if flat_before.get(key) != flat_now.get(key)]
    return [f"{key} was {_brief(flat_before.get(key))} and is {_brief(flat_now.get(key))}" for key in keys]


def _flat(data: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by keys with dots."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield before + key, value


def _brief(value: Any) -> str:
    """Return a value in a few words; of a hash the beginning."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:16]}…"
