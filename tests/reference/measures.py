"""The slow twins of the measures: loops over pixels, written from the definitions, with nothing of the package."""

import itertools
import math
from fractions import Fraction

import numpy as np


def pixels(array):
    return [(i, j) for i in range(len(array)) for j in range(len(array[0]))]


def distance(mask, pixel):
    """To the nearest pixel of the mask."""
    return min((math.dist(pixel, p) for p in pixels(mask) if mask[p[0]][p[1]]), default=math.inf)


def opposite(mask):
    return [[not value for value in row] for row in mask]


def share(heat, region, within=None):
    part = whole = Fraction(0)
    for i, j in pixels(heat):
        value = Fraction(float(heat[i][j]))
        part += value * bool(region[i][j])
        whole += value * bool(True if within is None else within[i][j])
    return float(part / whole) if whole else math.nan


def band(mask, width=2):
    outside = opposite(mask)
    return [[distance(outside if mask[i][j] else mask, (i, j)) <= width for j in range(len(mask[0]))] for i in range(len(mask))]


def within_distance(mask, reach):
    return [[distance(mask, (i, j)) <= reach for j in range(len(mask[0]))] for i in range(len(mask))]


def rank_accuracy(heat, target):
    """Pixels enter from the highest value down; those of one value that cannot all enter do so in equal shares."""
    places = wanted = sum(bool(target[i][j]) for i, j in pixels(target))
    if not wanted or not any(heat[i][j] for i, j in pixels(heat)):
        return math.nan
    found = Fraction(0)
    for value in sorted({float(heat[i][j]) for i, j in pixels(heat)}, reverse=True):
        level = [p for p in pixels(heat) if heat[p[0]][p[1]] == value]
        entering = min(places, len(level))
        found += Fraction(entering * sum(bool(target[i][j]) for i, j in level), len(level))
        places -= entering
    return float(found / wanted)


def pointing(heat, hit):
    highest = max(heat[i][j] for i, j in pixels(heat))
    if not highest:
        return math.nan
    peaks = [p for p in pixels(heat) if heat[p[0]][p[1]] == highest]
    return sum(bool(hit[i][j]) for i, j in peaks) / len(peaks)


def ranks(values):
    return [sum(other < v for other in values) + (sum(other == v for other in values) + 1) / 2 for v in values]


def rank_correlation(a, b):
    x, y = (ranks([float(m[i][j]) for i, j in pixels(m)]) for m in (a, b))
    mean = (len(x) + 1) / 2
    xy = sum((p - mean) * (q - mean) for p, q in zip(x, y, strict=True))
    xx, yy = (sum((p - mean) ** 2 for p in z) for z in (x, y))
    return xy / math.sqrt(xx * yy) if xx and yy else math.nan


def correlation_length(heat):
    height, width = len(heat), len(heat[0])
    mean = sum(float(heat[i][j]) for i, j in pixels(heat)) / (height * width)
    x = [[float(heat[i][j]) - mean for j in range(width)] for i in range(height)]

    def covariance(di, dj):
        products = [x[i][j] * x[i + di][j + dj] for i, j in pixels(x) if 0 <= i + di < height and 0 <= j + dj < width]
        return sum(products) / len(products)

    furthest = min(height, width) // 2
    lags = [(di, dj) for di in range(-furthest - 1, furthest + 2) for dj in range(-furthest - 1, furthest + 2)]
    before = 1.0
    for r in range(1, furthest + 1):
        ring = [covariance(*d) for d in lags if r - 0.5 <= math.hypot(*d) < r + 0.5]
        rho = sum(ring) / len(ring) / covariance(0, 0)
        if rho < math.exp(-1):
            return r - 1 + (before - math.exp(-1)) / (before - rho)
        before = rho
    return min(height, width) / 2


def sobel(grey):
    """The kernel of each axis written out; the border repeats its pixel, as scipy's ``reflect``."""
    axes = range(grey.ndim)

    def at(place):
        return float(grey[tuple(min(max(i, 0), side - 1) for i, side in zip(place, grey.shape, strict=True))])

    def slope(place, axis):
        total = 0.0
        for step in itertools.product((-1, 0, 1), repeat=grey.ndim):
            weight = step[axis] * math.prod(2 - abs(step[other]) for other in axes if other != axis)
            total += weight * at([i + d for i, d in zip(place, step, strict=True)])
        return total

    edges = [math.hypot(*(slope(place, axis) for axis in axes)) for place in np.ndindex(grey.shape)]
    return np.array(edges).reshape(grey.shape)


def gaussian_blur(mask, sigma):
    """A separable kernel cut at four sigmas, the picture mirrored at its border."""
    reach = int(4 * sigma + 0.5)
    kernel = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)]
    kernel = [k / sum(kernel) for k in kernel]

    def mirrored(i, n):
        i %= 2 * n
        return i if i < n else 2 * n - 1 - i

    def blur(rows):
        n = len(rows[0])
        return [
            [
                sum(k * float(row[mirrored(j + d, n)]) for d, k in zip(range(-reach, reach + 1), kernel, strict=True))
                for j in range(n)
            ]
            for row in rows
        ]

    across = blur(mask)
    return [list(row) for row in zip(*blur([list(column) for column in zip(*across, strict=True)]), strict=True)]


def average_precision(scores, present):
    """The sum of precision times the gain in recall, over every threshold that is a score."""
    total, before, area = sum(present), 0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        kept = [p for s, p in zip(scores, present, strict=True) if s >= threshold]
        area += (sum(kept) - before) / total * sum(kept) / len(kept)
        before = sum(kept)
    return area
