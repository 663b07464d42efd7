"""Networks that a function or class of yours returns, ``package.module:factory``."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from torch import nn

from relume.errors import RAISED_BY_FACTORY, ModelError
from relume.models.opened import ASSUMED, Opened
from relume.models.sources import SOURCES, ModelRequest
from relume.pictures.preprocessing import IMAGENET

__all__ = ["open_factory"]


def open_factory(request: ModelRequest) -> Opened:
    """Import the module and call the factory with the request's arguments.

    An error that the module or the factory itself raises comes through as it is.

    Raises:
        ModelError: there is no such module or factory, it does not take these arguments, or it returns no network.
    """
    spec, args = request.spec, request.args
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
    run = f"{spec} was imported and run"
    if isinstance(model, Opened):
        return dataclasses.replace(model, name=spec, model=model.model.eval(), notes=(run, *model.notes))
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"{spec!r} returned a {type(model).__name__}; a factory returns a torch.nn.Module or a relume.models.Opened"
        )
    return Opened(spec, model.eval(), IMAGENET, notes=(run, ASSUMED))


@contextmanager
def _current_directory() -> Iterator[None]:
    """Let modules in the current directory be imported, as ``python -m`` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _find(module: str, attribute: str) -> Callable[..., Any]:
    """Import the factory."""
    try:
        factory: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and misses one of its own
        close = difflib.get_close_matches(module, [key for key in SOURCES if SOURCES[key].recognises is None], n=1, cutoff=0.8)
        instead = f"did you mean {close[0]}:{attribute}?" if close else "check the name, or go to where it lies"
        raise ModelError(f"there is no module {module!r}, here or installed; {instead}") from error
    try:
        factory = functools.reduce(getattr, attribute.split("."), factory)
    except AttributeError as error:
        raise ModelError(
            f"the module {module!r} has no {attribute!r}; name a function or class that makes a network"
        ) from error
    if not callable(factory):
        raise ModelError(f"{module}:{attribute} is a {type(factory).__name__}, and cannot be called to make a network")
    return cast("Callable[..., Any]", factory)


def _check(spec: str, factory: Callable[..., Any], args: dict[str, Any]) -> None:
    """Refuse arguments that do not fit, which an error inside the factory could not be told from."""
    try:
        signature = inspect.signature(factory)
    except ValueError:  # some builtins have none
        return
    try:
        signature.bind(**args)
    except TypeError as error:
        raise ModelError(f"{spec!r} takes {signature}, and cannot be called with --model-args: {error}") from error
