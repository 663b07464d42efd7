"""Images with pixels taken out, in an order: replaced by one colour, by a blur, or by the mean of their neighbours."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import linalg

from relume.measures.similarity import Values

__all__ = ["Pixels", "blurred", "imputed", "order", "plain"]

Pixels = NDArray[np.int64]

#: The neighbours of a pixel, ``(down, across)``, with the weight of each: Rong et al. 2022, section 4.2.
NEIGHBOURS = {
    (down, across): (1 / 6 if 0 in (down, across) else 1 / 12)
    for down in (-1, 0, 1)
    for across in (-1, 0, 1)
    if (down, across) != (0, 0)
}


def order(heat: Values, generator: torch.Generator) -> Pixels:
    """Order the pixels of ``(H, W)`` from the highest down, as indices into the flat map; ties come in random order."""
    drawn = torch.randperm(heat.size, generator=generator).numpy()
    sorted_: Pixels = drawn[np.argsort(-heat.ravel()[drawn], kind="stable")]
    return sorted_


def plain(image: Values) -> Values:
    """Return the mean colour everywhere: ``(C, H, W)``."""
    return np.broadcast_to(image.mean(axis=(1, 2), keepdims=True), image.shape)


def blurred(image: Values) -> Values:
    """Blur the image by a Gaussian of ``σ = 5`` pixels at a side of 224, in proportion at others: Petsiuk et al. 2018."""
    return np.stack([ndimage.gaussian_filter(channel, 5 * min(channel.shape) / 224) for channel in image])


def imputed(image: Values, removed: Pixels, generator: torch.Generator, noise: float = 0.01) -> Values:
    """Fill the ``removed`` pixels of ``image`` ``(C, H, W)``, each with the weighted mean of its neighbours plus noise.

    Noisy linear imputation, Rong et al. 2022, arXiv:2202.00449: ``x_i = Σ_j w_ij x_j / Σ_j w_ij`` for all removed pixels at
    once, a sparse symmetric system; ``w`` is 1/6 beside and 1/12 across corners. The shape of the removed pixels is not seen.

    Args:
        image: the image; at least one pixel of it stays.
        removed: the pixels to fill, as indices into the flat picture.
        generator: of the noise.
        noise: its ``σ``, in units of the input.
    """
    flat = image.reshape(len(image), -1).copy()
    if len(removed) == 0:
        return flat.reshape(image.shape)
    height, width = image.shape[1:]
    place = np.full(height * width, -1)
    place[removed] = np.arange(len(removed))
    rows, columns = np.divmod(removed, width)
    diagonal, known = np.zeros(len(removed)), np.zeros((len(removed), len(image)))
    links: list[tuple[Values, Pixels, Pixels]] = []
    for (down, across), weight in NEIGHBOURS.items():
        y, x = rows + down, columns + across
        (inside,) = ((y >= 0) & (y < height) & (x >= 0) & (x < width)).nonzero()
        other = y[inside] * width + x[inside]
        diagonal[inside] += weight
        stays = place[other] < 0
        known[inside[stays]] += weight * flat[:, other[stays]].T
        links.append((np.full((~stays).sum(), -weight), inside[~stays], place[other[~stays]]))
    values, i, j = (np.concatenate(parts) for parts in zip(*links, strict=True))
    system = sparse.csc_array((values, (i, j)), (len(removed), len(removed))) + sparse.diags_array(diagonal, format="csc")
    filled = linalg.splu(system, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(known)
    drawn = torch.randn(filled.shape, generator=generator, dtype=torch.float64).numpy()
    flat[:, removed] = (filled + noise * drawn).T
    return flat.reshape(image.shape)
