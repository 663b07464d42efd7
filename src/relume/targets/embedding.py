"""The similarity of an embedding to a reference as a target."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from relume.errors import TargetError
from relume.targets.base import Target
from relume.targets.fitting import check_count
from relume.targets.outputs import embeddings

__all__ = ["Embedding"]


@dataclass(frozen=True, slots=True, eq=False)
class Embedding(Target):
    """The similarity of each image's embedding to a reference: another image's by the same network, or a text's.

    Attributes:
        vector: the reference, ``(D,)``, or one for each image, ``(N, D)``.
        kind: ``cosine``, in [-1, 1], or ``dot`` for the dot product.

    Example:
        >>> import torch
        >>> outputs = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
        >>> Embedding(torch.tensor([1.0, 0.0])).frozen(outputs, 2).scores(outputs)
        tensor([0.6000, 0.0000])
        >>> Embedding([1.0, 1.0], kind="dot").frozen(outputs, 2).scores(outputs)
        tensor([7., 2.])
    """

    vector: Any
    kind: Literal["cosine", "dot"] = "cosine"

    has_class_scores = False

    def frozen(self, outputs: Any, count: int) -> Embedding:
        """Bring the reference to the embeddings' device and dtype.

        Raises:
            TargetError: there are no embeddings, the reference does not fit, is zero or not finite, or there is no such kind.
        """
        if self.kind not in ("cosine", "dot"):
            raise TargetError(f"the kind of an embedding target is 'cosine' or 'dot'; got {self.kind!r}")
        values, vector = embeddings(outputs, count), self._vector
        if vector.ndim not in (1, 2) or vector.shape[-1] != values.shape[1]:
            raise TargetError(
                f"the reference has shape {tuple(vector.shape)}, and the network's embeddings {values.shape[1]} values; "
                f"give ({values.shape[1]},), or (N, {values.shape[1]}) with one for each image"
            )
        self.check(count)
        if not vector.isfinite().all():
            raise TargetError("the reference holds NaN or infinity; give the embedding of something")
        if not vector.any(-1).all():
            raise TargetError("the reference is zero, which is similar to nothing; give the embedding of something")
        return replace(self, vector=vector.to(values))

    def scores(self, outputs: Any) -> Tensor:
        """Compute the similarity, ``(N,)``."""
        values = embeddings(outputs)
        # a product by elements with a constant would be listed as a rectifier that somebody may have written by hand
        reference = self._vector if self.kind == "dot" else _unit(self._vector)
        products = torch.einsum("nd,nd->n", values, reference.expand_as(values))
        if self.kind == "dot":
            return products
        lengths = values.norm(dim=1)
        cosines: Tensor = products / (lengths + torch.finfo(lengths.dtype).tiny)  # 0 if the embedding is zero
        return cosines

    def check(self, count: int) -> None:
        """Refuse ``count`` images if there is a reference for each of another number of them."""
        if self._vector.ndim == 2:
            check_count(self._vector, "references", count)

    def rows(self, some: slice) -> Embedding:
        """Give the references of ``some`` of the images."""
        return replace(self, vector=self._vector[some]) if self._vector.ndim == 2 else self

    def repeated(self, times: int) -> Embedding:
        """Give the references for the batch repeated so many ``times``."""
        return replace(self, vector=self._vector.repeat(times, 1)) if self._vector.ndim == 2 else self

    @property
    def _vector(self) -> Tensor:
        try:
            return torch.as_tensor(self.vector).detach()
        except (TypeError, ValueError, RuntimeError):
            raise TargetError(
                f"the reference of an embedding target is a vector, (D,) or (N, D); got {self.vector!r}; "
                'that of a photo is relume.open_model(...).embedding("other.jpg")'
            ) from None

    def __str__(self) -> str:
        return f"{'cosine' if self.kind == 'cosine' else 'dot product'} with the reference"


def _unit(vector: Tensor) -> Tensor:
    """Scale vectors to length 1; half precision has no room for the square, nor for the product of two lengths."""
    scaled = vector / vector.abs().amax(-1, keepdim=True)
    unit: Tensor = scaled / scaled.norm(dim=-1, keepdim=True)
    return unit
