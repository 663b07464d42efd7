"""Errors of torch that a caller can do something about, in a sentence that says what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from relume.engine.module_state import tensors_of
from relume.engine.tensor_state import version
from relume.engine.wrappers import modules_of
from relume.errors import GraphError, HiddenRegionError, ModelError

__all__ = ["Unwritten", "translated", "versions"]

_WRITTEN = (
    "weights of the network were written to while it was explained, by the optimiser of another thread perhaps; "
    "explain a copy.deepcopy of it, or wait between two steps"
)
#: What torch says, and the error that is raised in place of its own.
_WORDS: tuple[tuple[str, Callable[[str], Exception]], ...] = (
    (
        "use_reentrant",
        lambda _: HiddenRegionError(
            "reentrant checkpointing gives no gradient with respect to an input; use checkpoint(..., use_reentrant=False)"
        ),
    ),
    (
        "region computed under selective activation checkpoint",
        lambda _: HiddenRegionError(
            "selective checkpointing allows one backward pass, and this explanation takes several; ask for one method at a "
            "time, with evidence=None, or use checkpoint(...) without context_fn"
        ),
    ),
    (
        "modified by an inplace operation",
        lambda said: GraphError(
            f"the network overwrites in place a value that its gradient needs ({said.partition(': ')[2].partition(';')[0]}); "
            "write that operation out of place"
        ),
    ),
    (
        "view size is not compatible",
        lambda _: ModelError(
            "the network calls .view() on a tensor that does not lie in memory as that needs, with its channels last perhaps; "
            "write .reshape(), give images and weights in torch.contiguous_format, or prepare it with channels_last=False"
        ),
    ),
)


def versions(model: Any) -> int:
    """Count how often the parameters of ``model`` were written to, as torch does: ``parameter.data`` escapes it."""
    if not isinstance(model, nn.Module):
        return 0
    held = (tensor for module in modules_of(model) for _, _, tensor in tensors_of(module))
    return sum(version(p) for p in held if isinstance(p, nn.Parameter) and not is_lazy(p))


@contextmanager
def translated(model: Any, written: int) -> Iterator[None]:
    """Exchange what torch says inside for a sentence; ``written`` is what :func:`versions` gave before the forward pass."""
    try:
        yield
    except RuntimeError as error:
        if "modified by an inplace operation" in str(error) and versions(model) != written:
            raise ModelError(_WRITTEN) from error
        for words, sentence in _WORDS:
            if words in str(error):
                raise sentence(str(error)) from error
        raise


class Unwritten:
    """Runs of one model, between which nobody may write to its weights: a map would be of two networks.

    A forward pass may write to its own. A step of another thread within one is noticed by torch in the backward pass, unless
    it is of biases alone, whose values no gradient needs.
    """

    def __init__(self, run: Callable[..., Any], model: Any) -> None:
        """Take ``run``, which runs ``model``."""
        self._run, self._model = run, model
        self._versions = versions(model)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it."""
        self.check()
        result = self._run(*args, **kwargs)
        self._versions = versions(self._model)
        return result

    def check(self) -> None:
        """Refuse what is made of these runs if the weights have been written to since the last one.

        Raises:
            ModelError: they have been.
        """
        if versions(self._model) != self._versions:
            raise ModelError(_WRITTEN)
