"""The slow twins of the audit's formulas: loops, written from the definitions, with nothing of the package."""

import itertools
import math

import numpy as np

from tests.reference.measures import pixels


def pearson(x, y):
    mx, my = sum(x) / len(x), sum(y) / len(y)
    xy = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True))
    return xy / math.sqrt(sum((a - mx) ** 2 for a in x) * sum((b - my) ** 2 for b in y))


def scaled(heat):
    highest = max(abs(heat[i][j]) for i, j in pixels(heat))
    return [[float(value) / highest for value in row] for row in heat]


def ssim(a, b):
    """Wang et al. 2004, equation 13, at every place where the window fits, and its mean; constants 0.01² and 0.03²."""
    size, reach = a.shape, 5
    a, b = ({place: float(value) / float(abs(x).max()) for place, value in np.ndenumerate(x)} for x in (a, b))
    steps = itertools.product(range(-reach, reach + 1), repeat=len(size))
    window = {step: math.exp(-sum(i * i for i in step) / (2 * 1.5**2)) for step in steps}
    total = sum(window.values())
    values = []
    for place in itertools.product(*(range(reach, side - reach) for side in size)):

        def mean(f, place=place):
            return sum(w * f(beside(place, step)) for step, w in window.items()) / total

        ma, mb = mean(lambda p: a[p]), mean(lambda p: b[p])
        va, vb = mean(lambda p: a[p] ** 2) - ma**2, mean(lambda p: b[p] ** 2) - mb**2
        cov = mean(lambda p: a[p] * b[p]) - ma * mb
        values.append((2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
    return sum(values) / len(values)


def beside(place, step):
    return tuple(i + d for i, d in zip(place, step, strict=True))


def hog(heat, cell):
    """Dalal & Triggs 2005: gradients, nine directions without sign in each cell, blocks of 3 × 3 cells, L2-Hys."""
    heat = scaled(heat)
    height, width = len(heat), len(heat[0])
    down, across = height // cell, width // cell
    cells = {(i, j): [0.0] * 9 for i in range(down) for j in range(across)}
    for i in range(down * cell):
        for j in range(across * cell):
            gy = heat[i + 1][j] - heat[i - 1][j] if 0 < i < height - 1 else 0.0
            gx = heat[i][j + 1] - heat[i][j - 1] if 0 < j < width - 1 else 0.0
            angle = math.degrees(math.atan2(gy, gx)) % 180
            cells[i // cell, j // cell][min(int(angle / 20), 8)] += math.hypot(gy, gx) / cell**2
    found = []
    for i in range(down - 2):
        for j in range(across - 2):
            block = [v for di in range(3) for dj in range(3) for v in cells[i + di, j + dj]]
            block = [min(v / math.sqrt(sum(u * u for u in block) + 1e-10), 0.2) for v in block]
            found += [v / math.sqrt(sum(u * u for u in block) + 1e-10) for v in block]
    return found


def imputed(channel, removed):
    """Every removed pixel becomes the weighted mean of its neighbours, again and again until nothing moves."""
    values = {place: float(value) for place, value in np.ndenumerate(channel)} | dict.fromkeys(removed, 0.0)
    weights = {(1,): 1 / 6, (1, 1): 1 / 12, (1, 1, 1): 1 / 18}
    near = {}
    for place in removed:
        steps = [step for step in itertools.product((-1, 0, 1), repeat=len(place)) if any(step)]
        near[place] = [(p, weights[(1,) * sum(map(abs, s))]) for s in steps if (p := beside(place, s)) in values]
    moved = 1.0
    while moved > 1e-13:
        moved = 0.0
        for place, others in near.items():
            mean = sum(weight * values[p] for p, weight in others) / sum(weight for _, weight in others)
            moved = max(moved, abs(mean - values[place]))
            values[place] = mean
    return np.array([*values.values()]).reshape(channel.shape)


def area(shares, heights):
    steps = zip(itertools.pairwise(shares), itertools.pairwise(heights), strict=True)
    return sum((s1 - s0) * (h0 + h1) / 2 for (s0, s1), (h0, h1) in steps) / (shares[-1] - shares[0])


def sensitivity(a, b):
    return math.sqrt(sum((q - p) ** 2 for p, q in zip(a, b, strict=True)) / sum(p * p for p in a))


def softmax(scores, index):
    return math.exp(scores[index]) / sum(math.exp(s) for s in scores)


def discrete_entropy(values, bins=100):
    """Shannon 1948, in nats, of a histogram: a value lies in the bin that it reaches, the highest in the last."""
    values = [float(v) for v in values]
    low, high = min(values), max(values)
    counts = [0] * bins
    for value in values:
        counts[min(int((value - low) / (high - low) * bins), bins - 1)] += 1
    return -sum(c / len(values) * math.log(c / len(values)) for c in counts if c)
