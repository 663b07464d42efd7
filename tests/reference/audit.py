"""The slow twins of the audit's formulas: loops, written from the definitions, with nothing of the package."""

import itertools
import math

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
    a, b, reach = scaled(a), scaled(b), 5
    span = range(-reach, reach + 1)
    window = {(i, j): math.exp(-(i * i + j * j) / (2 * 1.5**2)) for i in span for j in span}
    total = sum(window.values())
    values = []
    for y in range(reach, len(a) - reach):
        for x in range(reach, len(a[0]) - reach):

            def mean(f, y=y, x=x):
                return sum(w * f(y + i, x + j) for (i, j), w in window.items()) / total

            ma, mb = mean(lambda i, j: a[i][j]), mean(lambda i, j: b[i][j])
            va, vb = mean(lambda i, j: a[i][j] ** 2) - ma**2, mean(lambda i, j: b[i][j] ** 2) - mb**2
            cov = mean(lambda i, j: a[i][j] * b[i][j]) - ma * mb
            values.append((2 * ma * mb + 1e-4) * (2 * cov + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4)))
    return sum(values) / len(values)


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


def imputed(channel, removed, rounds=4000):
    """Every removed pixel becomes the weighted mean of its neighbours, again and again until nothing moves."""
    values = [[float(v) for v in row] for row in channel]
    height, width = len(values), len(values[0])
    for i, j in removed:
        values[i][j] = 0.0
    for _ in range(rounds):
        for i, j in removed:
            total = weights = 0.0
            for di in (-1, 0, 1):
                for dj in (-1, 0, 1):
                    if (di, dj) != (0, 0) and 0 <= i + di < height and 0 <= j + dj < width:
                        weight = 1 / 12 if di and dj else 1 / 6
                        total += weight * values[i + di][j + dj]
                        weights += weight
            values[i][j] = total / weights
    return values


def area(shares, heights):
    steps = zip(itertools.pairwise(shares), itertools.pairwise(heights), strict=True)
    return sum((s1 - s0) * (h0 + h1) / 2 for (s0, s1), (h0, h1) in steps) / (shares[-1] - shares[0])


def sensitivity(a, b):
    return math.sqrt(sum((q - p) ** 2 for p, q in zip(a, b, strict=True)) / sum(p * p for p in a))


def softmax(scores, index):
    return math.exp(scores[index]) / sum(math.exp(s) for s in scores)


def auc(good, bad):
    return sum((g > b) + (g == b) / 2 for g in good for b in bad) / (len(good) * len(bad))


def youden(good, bad):
    """The best of all cuts half-way between neighbouring values."""
    values = sorted({*good, *bad})
    cuts = [(a + b) / 2 for a, b in itertools.pairwise(values)]
    return max(cuts, key=lambda cut: sum(g < cut for g in good) / len(good) - sum(b < cut for b in bad) / len(bad))
