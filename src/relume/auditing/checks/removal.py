"""Images with pixels taken out, in an order: replaced by one colour, by a blur, or by the mean of their neighbours."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import linalg

from relume.measures.similarity import Values

__all__ = ["Pixels", "blurred", "imputed", "neighbours", "order", "plain"]

Pixels = NDArray[np.int64]


def neighbours(axes: int) -> dict[tuple[int, ...], float]:
    """Return the steps to the neighbours of a pixel, with the weight of each: a sixth, over the number of axes it moves along.

    In two axes these are the weights of Rong et al. 2022, section 4.2: 1/6 beside and 1/12 across corners.
    """
    steps = itertools.product((-1, 0, 1), repeat=axes)
    return {step: 1 / (6 * moved) for step in steps if (moved := np.count_nonzero(step))}


def order(heat: Values, generator: torch.Generator) -> Pixels:
    """Order the pixels of a map from the highest down, as indices into the flat map; ties come in random order."""
    drawn = torch.randperm(heat.size, generator=generator).numpy()
    sorted_: Pixels = drawn[np.argsort(-heat.ravel()[drawn], kind="stable")]
    return sorted_


def plain(image: Values) -> Values:
    """Return the mean colour everywhere: ``(C, *spatial)``."""
    return np.broadcast_to(image.mean(axis=tuple(range(1, image.ndim)), keepdims=True), image.shape)


def blurred(image: Values) -> Values:
    """Blur the image by a Gaussian of ``σ = 5`` pixels at a side of 224, in proportion at others: Petsiuk et al. 2018.

    The side is the shorter one of an image; of a volume the middle one, since it may have few slices.
    """
    side = sorted(image.shape[1:])[-2:][0]
    return np.stack([ndimage.gaussian_filter(channel, 5 * side / 224) for channel in image])


def imputed(image: Values, removed: Pixels, generator: torch.Generator, noise: float = 0.01) -> Values:
    """Fill the ``removed`` pixels of ``image`` ``(C, *spatial)``, each with the weighted mean of its neighbours plus noise.

    Noisy linear imputation, Rong et al. 2022, arXiv:2202.00449: ``x_i = Σ_j w_ij x_j / Σ_j w_ij`` for all removed pixels at
    once, a sparse symmetric system; :func:`neighbours` has ``w``. The shape of the removed pixels is not seen.

    Args:
        image: the image; at least one pixel of it stays.
        removed: the pixels to fill, as indices into the flat picture.
        generator: of the noise.
        noise: its ``σ``, in units of the input.
    """
    flat = image.reshape(len(image), -1).copy()
    if len(removed) == 0:
        return flat.reshape(image.shape)
    size = image.shape[1:]
    place = np.full(flat.shape[1], -1)
    place[removed] = np.arange(len(removed))
    at = np.stack(np.unravel_index(removed, size), axis=1)
    diagonal, known = np.zeros(len(removed)), np.zeros((len(removed), len(image)))
    links: list[tuple[Values, Pixels, Pixels]] = []
    for step, weight in neighbours(len(size)).items():
        beside = at + step
        (inside,) = np.nonzero(((beside >= 0) & (beside < size)).all(axis=1))
        other = np.ravel_multi_index(tuple(beside[inside].T), size)
        diagonal[inside] += weight
        stays = place[other] < 0
        known[inside[stays]] += weight * flat[:, other[stays]].T
        links.append((np.full((~stays).sum(), -weight), inside[~stays], place[other[~stays]]))
    values, i, j = (np.concatenate(parts) for parts in zip(*links, strict=True))
    system = sparse.csc_array((values, (i, j)), (len(removed), len(removed))) + sparse.diags_array(diagonal, format="csc")
    filled = _solved(system, known, len(size))
    drawn = torch.randn(filled.shape, generator=generator, dtype=torch.float64).numpy()
    flat[:, removed] = (filled + noise * drawn).T
    return flat.reshape(image.shape)


def _solved(system: sparse.csc_array, known: Values, axes: int) -> Values:
    """Solve a symmetric system for each column of ``known``: by factors, or for volumes, whose factors are dense, by steps."""
    if axes < 3:
        factors = linalg.splu(system, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
        solved: Values = factors.solve(known)
        return solved
    own = sparse.diags_array(1 / system.diagonal())
    return np.stack([linalg.cg(system, column, rtol=1e-6, M=own)[0] for column in known.T], axis=1)
