"""The slow twins of wrappers: loops over copies, or over values, written from the definitions.

``attribute`` makes the maps of a batch of images; everything is kept, and averaged at the end.
"""

import itertools
import math

import torch

from tests.reference.twin import linear


def noisy_copies(images, samples, noise, generator):
    """Smilkov et al. 2017, section 3: ``x + N(0, σ²)``, the noise level being ``σ / (x_max - x_min)`` of each image."""
    for _ in range(samples):
        epsilon = torch.randn(images.shape[1:], generator=generator, dtype=images.dtype)
        yield torch.stack([image + noise * (image.max() - image.min()) * epsilon for image in images])


def smoothgrad(attribute, images, samples, noise, generator):
    """Mean and population variance of the maps of noisy copies."""
    maps = [attribute(copy) for copy in noisy_copies(images, samples, noise, generator)]
    mean = sum(maps) / samples
    return mean, sum((values - mean) ** 2 for values in maps) / samples


def mirrored(values):
    """Columns in the other order."""
    return torch.stack([values[..., j] for j in reversed(range(values.shape[-1]))], dim=-1)


def resized(values, size):
    """Every plane of ``values`` interpolated to ``size``."""
    planes = values.reshape(-1, *values.shape[-2:])
    return torch.stack([linear(plane, size) for plane in planes]).reshape(*values.shape[:-2], *size)


def augmented(attribute, images, scales, *, flip):
    """The mean of the maps of resized and mirrored copies, each mirrored and resized back to the map of the images."""
    plain = attribute(images)
    maps = []
    for scale in scales:
        copy = resized(images, [round(side * scale) for side in images.shape[-2:]])
        maps.append(resized(attribute(copy), plain.shape[-2:]))
        if flip:
            maps.append(resized(mirrored(attribute(mirrored(copy))), plain.shape[-2:]))
    return sum(maps) / len(maps)


def competition(maps):
    """Walter, Vreeken & Fischer 2026, value by value: the first map's, times its share where that is above an even one."""
    highest = [[float(image.abs().max()) or 1.0 for image in values] for values in maps]
    result = torch.zeros_like(maps[0])
    for place in itertools.product(*(range(side) for side in result.shape)):
        powers = [math.exp(10 * abs(float(m[place])) / high[place[0]]) for m, high in zip(maps, highest, strict=True)]
        share = powers[0] / sum(powers)
        result[place] = maps[0][place] * share if share - 1 / len(maps) > 0.01 else 0.0
    return result
