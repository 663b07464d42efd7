"""Preparations: what :func:`relume.prepare` did to a network, carried by the network it made."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from relume.engine.fingerprint import Fingerprint
from relume.engine.module_state import tensor_of
from relume.engine.tensor_state import version
from relume.engine.wrappers import unwrap
from relume.errors import ModelError

__all__ = ["Preparation", "Source", "layer_alias", "preparation_of"]


@dataclass(frozen=True, slots=True)
class Source:
    """A parameter or buffer ``key`` of the caller's network, in the ``module`` at ``prefix``, as it was.

    Its values were ``copied``, or the prepared network shares its memory, and so follows what is written there.
    """

    prefix: str
    key: str
    module: weakref.ref[nn.Module]
    was: tuple[int, int, int]
    copied: bool

    @classmethod
    def of(cls, prefix: str, module: nn.Module, key: str, *, copied: bool) -> Source:
        """Remember the parameter or buffer ``key`` of ``module`` as it is now."""
        return cls(prefix, key, weakref.ref(module), _state(module, key, copied=copied), copied)

    @property
    def name(self) -> str:
        """Its name in the network."""
        return f"{self.prefix}.{self.key}".lstrip(".")

    def changed(self) -> bool:
        """Tell whether its module has another tensor now; where it was copied, also whether that was written to."""
        module = self.module()
        return module is not None and _state(module, self.key, copied=self.copied) != self.was


def _state(module: nn.Module, key: str, *, copied: bool) -> tuple[int, int, int]:
    tensor = tensor_of(module, key)
    if tensor is None:
        return 0, 0, 0
    return id(tensor), tensor.data_ptr(), version(tensor) if copied else 0


@dataclass(frozen=True, slots=True, eq=False)
class Preparation:
    """The changes that made a network fast, and how near the result is to the network as it was.

    Attributes:
        folded: every BatchNorm that is folded, and the convolution that it is folded into.
        kept: every BatchNorm that is not, and why.
        packed: the convolutions whose weights lie as oneDNN wants them.
        channels_last: images and maps lie in memory with their channels last.
        dtype: what the network computes in.
        lean: of a ReLU's output, one bit a value is kept between forward and backward pass.
        difference: of its outputs on the example, the largest, relative to the largest output.
        agreement: Spearman's rank correlation of the two gradients of the example's outputs.
        sources: the tensors of it that were copied or are shared.
        fingerprint: its modules, attributes and hooks, as they were.
        names: the modules of the caller's network, and what they are called.
        weights: the fingerprint of the network's weights, before: see :func:`relume.engine.weights.fingerprint_of`.
        renew: makes again what depends on weights of the prepared network that were written to since.
    """

    folded: Mapping[str, str]
    kept: Mapping[str, str]
    packed: tuple[str, ...]
    channels_last: bool
    dtype: torch.dtype
    lean: bool
    difference: float
    agreement: float
    sources: tuple[Source, ...]
    fingerprint: Fingerprint
    names: weakref.WeakKeyDictionary[nn.Module, str]
    weights: str
    renew: Callable[[nn.Module], None]

    #: The name of the attribute that holds it, which no network has of its own.
    KEY: ClassVar[str] = "_relume_preparation"

    @property
    def unwatched(self) -> tuple[str, ...]:
        """The attributes of the caller's network that may change inside without being noticed."""
        return self.fingerprint.unwatched

    def hang_on(self, network: nn.Module) -> None:
        """Let the network carry it, also as ``network.preparation`` where that is nothing of the network's own."""
        vars(network)[self.KEY] = self
        if "preparation" not in dir(network):
            vars(network)["preparation"] = self

    def check(self) -> None:
        """Refuse to speak for a network that has changed since, which is looked at as long as it is there.

        What is written through ``parameter.data`` or NumPy leaves no trace in torch and is not noticed; nor is a change inside
        an object that is :attr:`unwatched`, in a class or in a global variable.

        Raises:
            ModelError: a module, weight, buffer, attribute or hook is another one now, or has been written to where it was
                copied.
        """
        attributes = self.fingerprint.changed()
        changed = [*attributes, *(source.name for source in self.sources if source.changed())]
        if changed:
            itself = " (running the network itself may be what changed them)" if attributes else ""
            raise ModelError(
                f"{len(changed)} parts of the network have changed since it was prepared, {changed[0]!r} first; "
                f"call relume.prepare again{itself}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "folded": dict(self.folded),
            "kept": dict(self.kept),
            "packed": list(self.packed),
            "channels_last": self.channels_last,
            "dtype": str(self.dtype).removeprefix("torch."),
            "lean": self.lean,
            "difference": self.difference,
            "agreement": self.agreement,
            "unwatched": list(self.unwatched),
        }

    def __str__(self) -> str:
        parts = [f"{len(self.folded)} of {len(self.folded) + len(self.kept)} BatchNorms folded"]
        parts += [f"{len(self.packed)} convolutions packed"] * bool(self.packed)
        parts += ["channels last"] * self.channels_last
        parts += [str(self.dtype).removeprefix("torch.")]
        parts += ["one bit kept of each ReLU's value"] * self.lean
        near = f"outputs within {self.difference:.1e}, gradient's rank correlation {self.agreement:.6f}"
        more = f" and {len(self.unwatched) - 3} more" if len(self.unwatched) > 3 else ""
        unwatched = f"; changes inside {', '.join(self.unwatched[:3])}{more} are not noticed" * bool(self.unwatched)
        return f"{', '.join(parts)}; on the example {near}{unwatched}"


def preparation_of(model: Any) -> Preparation | None:
    """Return the preparation of ``model``; None if it is no prepared network."""
    preparation = vars(unwrap(model)).get(Preparation.KEY) if isinstance(model, nn.Module) else None
    return preparation if isinstance(preparation, Preparation) else None


def layer_alias(model: nn.Module, layer: nn.Module | str) -> nn.Module | str:
    """Return the name of ``layer`` if it is a module of the network that ``model`` was prepared from, else ``layer``."""
    preparation = preparation_of(model)
    return preparation.names.get(layer, layer) if preparation is not None and isinstance(layer, nn.Module) else layer
