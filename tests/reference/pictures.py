"""Pictures of maps, pixel by pixel in float64: where each pixel of a photo lies in the map, and what colour that gives."""

import math

import numpy as np


def dim(grey):
    """What stands for a grey from 0 to 255 where the network never looked."""
    return 0.1 * 255 + 0.3 * grey


def value_at(values, u, v):
    """A map ``(H, W)`` at a place, in pixels from its left and upper edge: bilinear, constant beyond the outermost centres."""
    height, width = values.shape
    x, y = min(max(u - 0.5, 0), width - 1), min(max(v - 0.5, 0), height - 1)
    i, j = min(math.floor(y), height - 2) if height > 1 else 0, min(math.floor(x), width - 2) if width > 1 else 0
    down, right = min(i + 1, height - 1), min(j + 1, width - 1)
    a, b = y - i, x - j
    upper = (1 - b) * values[i, j] + b * values[i, right]
    lower = (1 - b) * values[down, j] + b * values[down, right]
    return (1 - a) * upper + a * lower


def picture(values, photo, color):
    """The picture of ``values`` on ``photo``: ``color(value, grey, rgb)`` inside what was seen, dimmed grey elsewhere.

    A pixel counts as seen if all of it is.
    """
    rgb = np.asarray(photo.picture, dtype=np.float64)
    greys = np.asarray(photo.picture.convert("L"), dtype=np.float64)
    left, top, right, bottom = photo.box
    height, width = values.shape
    drawn = np.empty_like(rgb)
    for y in range(rgb.shape[0]):
        for x in range(rgb.shape[1]):
            u, v = (x + 0.5 - left) / (right - left) * width, (y + 0.5 - top) / (bottom - top) * height
            inside = left <= x and x + 1 <= right and top <= y and y + 1 <= bottom
            drawn[y, x] = color(value_at(values, u, v), greys[y, x], rgb[y, x]) if inside else dim(greys[y, x])
    return drawn


def mass_threshold(values, share):
    """The largest value of ``|values|`` such that the pixels at or above it hold ``share`` of the mass, by trying them all."""
    magnitudes = np.abs(values).ravel().astype(np.float64)
    for threshold in sorted(set(magnitudes), reverse=True):
        if magnitudes[magnitudes >= threshold].sum() >= share * magnitudes.sum():
            return threshold
    raise AssertionError("all of them hold everything")
