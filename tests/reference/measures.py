"""The slow twins of the measures: loops over pixels of any axes, written from the definitions, with nothing of the package."""

import itertools
import math
from fractions import Fraction

import numpy as np


def pixels(array):
    return list(np.ndindex(array.shape))


def of_each(formula, shape):
    """The values of a formula at every pixel."""
    return np.array([formula(p) for p in np.ndindex(shape)]).reshape(shape)


def distance(places, pixel):
    """To the nearest of some places."""
    return min((math.dist(pixel, p) for p in places), default=math.inf)


def share(heat, region, within=None):
    part = whole = Fraction(0)
    for p in pixels(heat):
        value = Fraction(float(heat[p]))
        part += value * bool(region[p])
        whole += value * bool(True if within is None else within[p])
    return float(part / whole) if whole else math.nan


def band(mask, width=2):
    inside, outside = ([p for p in pixels(mask) if bool(mask[p]) == side] for side in (True, False))
    return of_each(lambda p: distance(outside if mask[p] else inside, p) <= width, mask.shape)


def within_distance(mask, reach):
    inside = [p for p in pixels(mask) if mask[p]]
    return of_each(lambda p: distance(inside, p) <= reach, mask.shape)


def rank_accuracy(heat, target):
    """Pixels enter from the highest value down; those of one value that cannot all enter do so in equal shares."""
    places = wanted = sum(bool(target[p]) for p in pixels(heat))
    if not wanted or not any(heat[p] for p in pixels(heat)):
        return math.nan
    found = Fraction(0)
    for value in sorted({float(heat[p]) for p in pixels(heat)}, reverse=True):
        level = [p for p in pixels(heat) if heat[p] == value]
        entering = min(places, len(level))
        found += Fraction(entering * sum(bool(target[p]) for p in level), len(level))
        places -= entering
    return float(found / wanted)


def pointing(heat, hit):
    highest = max(heat[p] for p in pixels(heat))
    if not highest:
        return math.nan
    peaks = [p for p in pixels(heat) if heat[p] == highest]
    return sum(bool(hit[p]) for p in peaks) / len(peaks)


def ranks(values):
    return [sum(other < v for other in values) + (sum(other == v for other in values) + 1) / 2 for v in values]


def rank_correlation(a, b):
    x, y = (ranks([float(m[p]) for p in pixels(m)]) for m in (a, b))
    mean = (len(x) + 1) / 2
    xy = sum((p - mean) * (q - mean) for p, q in zip(x, y, strict=True))
    xx, yy = (sum((p - mean) ** 2 for p in z) for z in (x, y))
    return xy / math.sqrt(xx * yy) if xx and yy else math.nan


def pixel_auc(heat, target):
    """Every pair of a pixel of the target and one that is not, ties counted half."""
    inside, outside = ([float(heat[p]) for p in pixels(heat) if bool(target[p]) == side] for side in (True, False))
    if not inside or not outside or not heat.any():
        return math.nan
    won = sum((a > b) + (a == b) / 2 for a in inside for b in outside)
    return won / (len(inside) * len(outside))


def gini(heat):
    """Half the mean absolute difference of two pixels, over their mean."""
    values = [float(heat[p]) for p in pixels(heat)]
    if not sum(values):
        return math.nan
    return sum(abs(a - b) for a in values for b in values) / (2 * len(values) * sum(values))


def entropy(heat):
    values = [Fraction(float(heat[p])) for p in pixels(heat)]
    if not sum(values):
        return math.nan
    shares = [float(value / sum(values)) for value in values]
    return -sum(p * math.log(p) for p in shares if p) / math.log(len(values))


def correlation_length(heat):
    mean = sum(float(heat[p]) for p in pixels(heat)) / len(pixels(heat))
    x = {p: float(heat[p]) - mean for p in pixels(heat)}

    def covariance(lag):
        pairs = [(p, tuple(i + d for i, d in zip(p, lag, strict=True))) for p in x]
        products = [x[p] * x[q] for p, q in pairs if q in x]
        return sum(products) / len(products)

    furthest = min(heat.shape) // 2
    lags = list(itertools.product(range(-furthest - 1, furthest + 2), repeat=heat.ndim))
    before = 1.0
    for r in range(1, furthest + 1):
        ring = [covariance(lag) for lag in lags if r - 0.5 <= math.hypot(*lag) < r + 0.5]
        rho = sum(ring) / len(ring) / covariance((0,) * heat.ndim)
        if rho < math.exp(-1):
            return r - 1 + (before - math.exp(-1)) / (before - rho)
        before = rho
    return min(heat.shape) / 2


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

    def blur(row):
        n = len(row)
        return [
            sum(k * float(row[mirrored(j + d, n)]) for d, k in zip(range(-reach, reach + 1), kernel, strict=True))
            for j in range(n)
        ]

    for axis in range(mask.ndim):
        mask = np.apply_along_axis(blur, axis, mask)
    return mask


def average_precision(scores, present):
    """The sum of precision times the gain in recall, over every threshold that is a score."""
    total, before, area = sum(present), 0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        kept = [p for s, p in zip(scores, present, strict=True) if s >= threshold]
        area += (sum(kept) - before) / total * sum(kept) / len(kept)
        before = sum(kept)
    return area
