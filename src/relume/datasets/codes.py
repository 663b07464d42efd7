"""The codes of stored maps: a byte for each value, which keeps the order of small values; or float32, which is exact.

Rank correlation, by which maps are compared, depends on the many small values of a map. Even steps of 8 bits lose them, and
float16 takes twice the room and loses those below 6e-8. The sixth root spreads them over the codes:
``python -m benchmarks.codes`` compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Code", "decode", "encode"]

#: ``sixth_root``: int8, ``round(127 · sign(v) · (|v| / max |v|)^(1/6))``; ``positive_sixth_root``: of values not below zero,
#: uint8, with 255 for 127; ``float32``: the values, little-endian.
Code: TypeAlias = Literal["sixth_root", "positive_sixth_root", "float32"]

#: The type of each code, and the code of the highest magnitude.
_CODES: dict[str, tuple[Any, int]] = {
    "sixth_root": (np.int8, 127),
    "positive_sixth_root": (np.uint8, 255),
    "float32": (np.dtype("<f4"), 1),
}


def encode(values: Tensor, code: Code = "sixth_root") -> tuple[bytes, float]:
    """Encode the map of one image, ``(*shape)``; return its bytes, in C order, and its scale.

    The scale is ``max |v|`` as a float32; 0 for a map that is zero everywhere, and 1 for ``float32``.

    Example:
        >>> import torch
        >>> from relume.datasets import decode, encode
        >>> content, scale = encode(torch.tensor([-2.0, 0.0, 1e-6]))
        >>> list(content), scale
        ([129, 0, 11], 2.0)
        >>> decode(content, scale, (3,))
        tensor([-2.0000e+00,  0.0000e+00,  8.4443e-07])
    """
    array, (dtype, highest) = values.detach().to("cpu", torch.float32).numpy(), _CODES[code]
    if code == "float32":
        return array.astype(dtype).tobytes(), 1.0
    magnitudes = np.abs(array)
    scale = float(magnitudes.max(initial=0))
    roots = np.cbrt(np.sqrt(magnitudes / (scale or 1)))
    return np.rint(np.copysign(roots * highest, array)).astype(dtype).tobytes(), scale


def decode(content: bytes, scale: float, shape: Sequence[int], code: Code = "sixth_root") -> Tensor:
    """Decode what :func:`encode` returned, to float32 ``(*shape)``.

    Raises:
        ValueError: the bytes are more or fewer than the shape has room for.

    Example:
        >>> from relume.datasets import decode
        >>> decode(bytes([255, 128]), 1.0, (2,), "positive_sixth_root")
        tensor([1.0000, 0.0160])
    """
    dtype, highest = _CODES[code]
    stored: NDArray[Any] = np.frombuffer(content, dtype).reshape(shape)
    values = torch.from_numpy(stored.astype(np.float32))
    return values if code == "float32" else (values / highest).pow(6) * values.sign() * scale
