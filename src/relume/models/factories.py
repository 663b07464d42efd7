"""``package.module:factory``: a network that a function of yours returns."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from relume.errors import RAISED_BY_FACTORY, ModelError
from relume.models.checkpoints import read_checkpoint
from relume.models.opened import ASSUMED, Opened
from relume.pictures.preprocessing import IMAGENET

__all__ = ["open_factory"]


def open_factory(spec: str, weights: Path | None, args: dict[str, Any]) -> Opened:
    """Import the module, call the factory with ``args``, load ``weights`` if given.

    What the module or the factory itself raises comes through as it is.

    Raises:
        ModelError: no such module or factory, arguments it does not take, no network returned, or weights that do not fit.
    """
    checkpoint = None if weights is None else read_checkpoint(weights)  # first: a wrong path should execute nothing
    try:
        with _current_directory():
            factory = _find(*spec.split(":"))
            _check(spec, factory, args)
            model = factory(**args)
    except SystemExit as error:
        raise ModelError(
            f"{spec!r} ended the program when it was imported or called; put what a script does under "
            "if __name__ == '__main__', so that its factory can be called"
        ) from error
    except Exception as error:
        if not isinstance(error, ModelError):
            error.add_note(f"{RAISED_BY_FACTORY} {spec})")
        raise
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec!r} returned a {type(model).__name__}; a factory returns a torch.nn.Module")
    notes: tuple[str, ...] = (f"{spec} was imported and run", ASSUMED)
    if checkpoint is not None:
        notes += checkpoint.load_into(model, spec)
    return Opened(spec, model.eval(), IMAGENET, None, notes=notes)


@contextmanager
def _current_directory() -> Iterator[None]:
    """Modules that lie in the current directory can be imported, as they can in ``python -m``."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _find(module: str, attribute: str) -> Callable[..., Any]:
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and misses one of its own
        close = difflib.get_close_matches(module, ("torchvision", "timm", "hf"), n=1, cutoff=0.8)
        instead = f"did you mean {close[0]}:{attribute}?" if close else "check the name, or go to where it lies"
        raise ModelError(f"there is no module {module!r}, here or installed; {instead}") from error
    try:
        found = functools.reduce(getattr, attribute.split("."), found)
    except AttributeError as error:
        raise ModelError(
            f"the module {module!r} has no {attribute!r}; name a function or class that makes a network"
        ) from error
    if not callable(found):
        raise ModelError(f"{module}:{attribute} is a {type(found).__name__}, and cannot be called to make a network")
    factory: Callable[..., Any] = found
    return factory


def _check(spec: str, factory: Callable[..., Any], args: dict[str, Any]) -> None:
    """Arguments that do not fit are told from an error inside the factory."""
    try:
        signature = inspect.signature(factory)
    except ValueError:  # some builtins have none
        return
    try:
        signature.bind(**args)
    except TypeError as error:
        raise ModelError(f"{spec!r} takes {signature}, and cannot be called with --model-args: {error}") from error
