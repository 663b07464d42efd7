"""The things: each a function that draws one with a pen, in random colours, proportions and pose.

Coordinates are a thing's own, about [-1, 1], y downwards. A cat and a dog share coats, markings, bodies and poses; ears,
muzzle, whiskers, pupils and tail tell them apart, as in life.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.random import Generator

from relume.demo.pen import Color, Pen, hsv, mixed

__all__ = ["THINGS"]

BLACK, WHITE, INK = (20, 18, 22), (250, 248, 242), (44, 38, 46)
PINK, ROSE, GOLD, GLASS = (236, 166, 166), (222, 104, 116), (250, 206, 84), (196, 226, 240)
SIDES = (-1, 1)


def _vivid(rng: Generator) -> Color:
    return hsv(rng.random(), rng.uniform(0.45, 0.9), rng.uniform(0.55, 0.98))


def _dark(color: Color, share: float = 0.3) -> Color:
    return mixed(color, BLACK, share)


def _light(color: Color, share: float = 0.35) -> Color:
    return mixed(color, WHITE, share)


def _sometimes(rng: Generator, share: float = 0.5) -> bool:
    return bool(rng.random() < share)


# --- Cats and dogs -------------------------------------------------------------------------------------------------------

COATS = (hsv(0.07, 0.7, 0.88), hsv(0.06, 0.55, 0.52), hsv(0.1, 0.35, 0.92), hsv(0.6, 0.12, 0.58), hsv(0.7, 0.12, 0.25), WHITE)


def _coat(rng: Generator) -> tuple[Color, Color]:
    """Choose the colours of a coat and of its markings."""
    coat = mixed(COATS[rng.integers(len(COATS))], hsv(rng.random(), 0.5, 0.6), rng.uniform(0, 0.15))
    return coat, (_dark(coat, rng.uniform(0.35, 0.55)) if sum(coat) > 200 else _light(coat, 0.6))


def _cat_face(pen: Pen, rng: Generator, coat: Color, marks: Color) -> None:
    high, out = rng.uniform(1.0, 1.35), rng.uniform(0.75, 0.98)
    for s in SIDES:
        pen.fill([(s, -0.1), (s * out, -high), (s * 0.15, -0.78)], coat)
        pen.fill([(s * 0.86, -0.35), (s * (out - 0.06), 0.24 - high), (s * 0.38, -0.7)], PINK)
    pen.oval(0, 0, 1.08, 0.9, coat)
    _markings(pen, rng, marks)
    iris = hsv(rng.uniform(0.12, 0.5), 0.65, 0.92)
    for s in SIDES:
        pen.oval(s * 0.42, -0.06, 0.25, 0.22, INK)
        pen.oval(s * 0.42, -0.06, 0.22, 0.19, iris)
        pen.oval(s * 0.42, -0.06, 0.075, 0.18, BLACK)
        pen.oval(s * 0.2, 0.46, 0.28, 0.2, _light(coat, 0.6))
        for lift in (-1, 0, 1):
            pen.stroke([(s * 0.3, 0.44 + 0.06 * lift), (s * 1.4, 0.36 + 0.22 * lift)], 0.05, _light(coat, 0.85), 0.02)
    pen.fill([(-0.14, 0.24), (0.14, 0.24), (0, 0.4)], ROSE)


def _dog_face(pen: Pen, rng: Generator, coat: Color, marks: Color) -> None:
    ear = marks if _sometimes(rng) else _dark(coat, 0.2)
    low, out = rng.uniform(0.4, 1.0), rng.uniform(1.08, 1.35)
    pen.oval(0, 0, 0.92, 1.0, coat)
    _markings(pen, rng, marks)
    if _sometimes(rng):
        pen.oval(0, 0.95, 0.17, 0.28, ROSE)
    for s in SIDES:
        pen.blob([(s * 0.42, -0.93), (s * 0.92, -0.85), (s * out, 0), (s * 0.98, low), (s * 0.7, 0.05)], ear)
        pen.oval(s * 0.36, -0.14, 0.18, 0.19, WHITE)
        pen.oval(s * 0.35, -0.11, 0.145, 0.155, hsv(0.07, 0.6, 0.28))
        pen.oval(s * 0.31, -0.18, 0.05, 0.05, WHITE)
    pen.oval(0, 0.5, 0.5, 0.42, _light(coat, 0.55))
    pen.oval(0, 0.3, 0.25, 0.18, BLACK)
    pen.stroke([(0, 0.42), (0, 0.68)], 0.06, INK)


def _markings(pen: Pen, rng: Generator, marks: Color) -> None:
    """Draw a patch over an eye, stripes on the forehead, or nothing."""
    kind = rng.integers(3)
    if kind == 0:
        pen.oval(0.42 * SIDES[rng.integers(2)], -0.12, 0.36, 0.42, marks)
    elif kind == 1:
        for x in (-0.24, 0, 0.24):
            pen.stroke([(x, -0.82), (0.8 * x, -0.42)], 0.11, marks, 0.04)


def _spots(pen: Pen, rng: Generator, marks: Color) -> None:
    if _sometimes(rng):
        for _ in range(rng.integers(2, 6)):
            pen.oval(rng.uniform(-0.3, 0.3), rng.uniform(-0.18, 0.2), rng.uniform(0.05, 0.12), rng.uniform(0.05, 0.1), marks)


def _sitting(pen: Pen, rng: Generator, coat: Color, marks: Color) -> Pen:
    """Draw a sitting body, and return the pen for its head."""
    far = _dark(coat, 0.2)
    pen.blob([(0, -0.25), (0.3, 0.05), (0.5, 0.6), (0.46, 0.95), (-0.46, 0.95), (-0.5, 0.6), (-0.3, 0.05)], coat)
    pen.oval(0, 0.38, 0.2, 0.36, _light(coat, 0.5))
    _spots(pen.part(0, 0.4), rng, marks)
    for s in SIDES:
        pen.oval(s * 0.4, 0.88, 0.2, 0.12, far)
        pen.stroke([(s * 0.17, 0.35), (s * 0.17, 0.88)], 0.2, mixed(coat, far, 0.4))
        pen.oval(s * 0.18, 0.92, 0.14, 0.09, _light(coat, 0.3))
    return pen.part(0, -0.42, 0.47, rng.uniform(-0.2, 0.2))


def _standing(pen: Pen, rng: Generator, coat: Color, marks: Color) -> Pen:
    """Draw a standing body from the side, and return the pen for its head."""
    far = _dark(coat, 0.2)
    for x, color in ((-0.28, far), (0.5, far), (-0.46, coat), (0.68, coat)):
        pen.stroke([(x, 0.3), (x + rng.uniform(-0.1, 0.1), 0.88)], 0.2, color, 0.17)
    pen.blob([(-0.55, -0.05), (0.1, -0.06), (0.7, -0.02), (0.84, 0.3), (0.6, 0.52), (-0.1, 0.5), (-0.55, 0.5)], coat)
    _spots(pen.part(0.3, 0.2), rng, marks)
    return pen.part(-0.52, -0.28, 0.43, rng.uniform(-0.25, 0.15))


def _cat(pen: Pen, rng: Generator) -> None:
    coat, marks = _coat(rng)
    pose, tip, head = rng.integers(3), rng.uniform(-0.15, 0.15), pen.part(0, 0.12, 0.74)
    if pose == 1:
        pen.stroke([(0.3, 0.82), (0.75, 0.75), (0.85, 0.3), (0.8 + tip, -0.1)], 0.16, _dark(coat, 0.2), 0.11)
        head = _sitting(pen, rng, coat, marks)
    elif pose == 2:
        pen.stroke([(0.7, 0.1), (0.95, -0.15), (0.85, -0.55), (0.95 + tip, -0.85)], 0.15, coat, 0.1)
        head = _standing(pen, rng, coat, marks)
    _cat_face(head, rng, coat, marks)


def _dog(pen: Pen, rng: Generator) -> None:
    coat, marks = _coat(rng)
    pose, tip, head = rng.integers(3), rng.uniform(-0.12, 0.12), pen.part(0, 0, 0.78)
    if pose == 1:
        pen.stroke([(0.35, 0.78), (0.7, 0.62), (0.85 + tip, 0.3)], 0.24, _dark(coat, 0.2), 0.07)
        head = _sitting(pen, rng, coat, marks)
    elif pose == 2:
        pen.stroke([(0.68, 0.12), (0.9, -0.12), (0.97 + tip, -0.45)], 0.22, coat, 0.07)
        head = _standing(pen, rng, coat, marks)
    _dog_face(head, rng, coat, marks)


# --- Other animals -------------------------------------------------------------------------------------------------------


def _bird(pen: Pen, rng: Generator) -> None:
    body, beak = _vivid(rng), hsv(rng.uniform(0.05, 0.14), 0.85, 0.95)
    wing = _dark(body, rng.uniform(0.2, 0.45)) if _sometimes(rng) else _vivid(rng)
    flying = _sometimes(rng, 0.4)
    if flying:
        pen.blob([(0.05, 0.1), (0.0, -0.45), (0.35, -0.98), (0.55, -0.5), (0.5, 0.05)], _dark(wing, 0.25))
    else:
        for x in (-0.02, 0.2):
            pen.stroke([(x, 0.5), (x + 0.04, 0.9)], 0.06, _dark(beak, 0.3))
            pen.stroke([(x - 0.12, 0.93), (x + 0.16, 0.9)], 0.05, _dark(beak, 0.3))
    pen.fill([(0.5, 0.0), (1.05, -0.1), (1.0, 0.16), (1.06, 0.34), (0.5, 0.34)], wing)
    pen.blob(
        [(-0.75, -0.35), (-0.4, -0.62), (-0.05, -0.35), (0.45, -0.1), (0.72, 0.15), (0.3, 0.5), (-0.3, 0.46), (-0.62, 0.1)],
        body,
    )
    pen.blob([(-0.6, 0.0), (-0.2, 0.1), (0.1, 0.42), (-0.25, 0.45), (-0.55, 0.2)], _light(body, 0.55))
    if flying:
        pen.blob([(-0.2, 0.05), (-0.45, -0.4), (-0.2, -1.0), (0.15, -0.55), (0.35, 0.1)], wing)
    else:
        pen.blob([(-0.15, -0.12), (0.25, -0.1), (0.66, 0.2), (0.3, 0.34), (-0.05, 0.2)], wing)
        pen.stroke([(0.1, 0.1), (0.48, 0.2)], 0.05, _dark(wing, 0.3))
    pen.fill([(-0.7, -0.38), (-1.08, -0.22), (-0.68, -0.16)], beak)
    pen.oval(-0.48, -0.34, 0.1, 0.1, WHITE)
    pen.oval(-0.5, -0.34, 0.06, 0.06, BLACK)


def _butterfly(pen: Pen, rng: Generator) -> None:
    upper, spot = _vivid(rng), _vivid(rng)
    lower, rim = (_light(upper, 0.3) if _sometimes(rng) else _vivid(rng)), _dark(upper, 0.6)
    open_ = rng.uniform(0.7, 1.0)
    for s in SIDES:
        for color, grow in ((rim, 1.0), (None, 0.82)):
            wing = np.array([(0.08, 0.05), (0.45, 0.12), (0.8, 0.5), (0.55, 0.9), (0.15, 0.6)]) * (s * open_, 1)
            pen.blob(wing.mean(0) + grow * (wing - wing.mean(0)), color or lower)
            wing = np.array([(0.06, 0.05), (0.2, -0.55), (0.75, -0.92), (1.02, -0.55), (0.75, -0.02)]) * (s * open_, 1)
            pen.blob(wing.mean(0) + grow * (wing - wing.mean(0)), color or upper)
        pen.oval(s * 0.66 * open_, -0.52, 0.16 * open_, 0.16, spot)
        pen.oval(s * 0.5 * open_, 0.52, 0.12 * open_, 0.12, spot)
        pen.stroke([(0, -0.42), (s * 0.12, -0.75), (s * 0.3, -0.9)], 0.05, INK)
    pen.stroke([(0, -0.42), (0, 0.62)], 0.17, INK, 0.09)


def _fish(pen: Pen, rng: Generator) -> None:
    body, fin = _vivid(rng), _vivid(rng)
    tall = rng.uniform(0.38, 0.62)
    pen.blob([(0.45, 0), (0.78, -0.2), (1.02, -0.5), (0.95, 0), (1.02, 0.5), (0.78, 0.2)], fin)
    pen.blob([(-0.35, -0.6 * tall), (0.0, -tall - rng.uniform(0.15, 0.35)), (0.4, -tall - 0.1), (0.45, -0.3 * tall)], fin)
    pen.blob([(-0.1, 0.6 * tall), (0.1, tall + 0.24), (0.35, tall + 0.1), (0.3, 0.5 * tall)], fin)
    pen.blob(
        [(-0.95, 0.02), (-0.6, -0.7 * tall), (0, -tall), (0.62, -0.25), (0.62, 0.25), (0, tall), (-0.6, 0.75 * tall)], body
    )
    pen.blob([(-0.85, 0.15), (0, 0.35 * tall), (0.55, 0.15), (0, 0.9 * tall), (-0.55, 0.66 * tall)], _light(body, 0.5))
    for x in (-0.12, 0.12, 0.36)[: rng.integers(4)]:
        pen.stroke([(x, -0.68 * tall), (x + 0.07, 0), (x, 0.6 * tall)], 0.1, fin, 0.06)
    pen.stroke([(-0.36, -0.4 * tall), (-0.28, 0), (-0.36, 0.45 * tall)], 0.04, _dark(body, 0.4))
    pen.oval(-0.58, -0.1, 0.13, 0.13, WHITE)
    pen.oval(-0.6, -0.1, 0.07, 0.07, BLACK)
    pen.stroke([(-0.9, 0.12), (-0.74, 0.14)], 0.045, _dark(body, 0.6))


# --- Plants --------------------------------------------------------------------------------------------------------------


def _green(rng: Generator) -> Color:
    return hsv(rng.uniform(0.22, 0.42), rng.uniform(0.45, 0.8), rng.uniform(0.4, 0.75))


def _flower(pen: Pen, rng: Generator) -> None:
    petal, heart, stem = _vivid(rng), GOLD if _sometimes(rng, 0.7) else INK, _green(rng)
    lean = rng.uniform(-0.2, 0.2)
    pen.stroke([(0, -0.3), (lean, 0.4), (0.5 * lean, 1.0)], 0.1, stem)
    for s in SIDES:
        pen.blob(
            [(0.8 * lean, 0.72), (s * 0.3 + lean, 0.36), (s * 0.6 + lean, 0.34), (s * 0.34 + lean, 0.62)], _dark(stem, 0.12)
        )
    count, long, head = rng.integers(5, 10), rng.uniform(0.3, 0.36), pen.part(0, -0.38, 1, rng.random())
    for layer, color in ((1.0, _dark(petal, 0.15)), (0.72, petal)):
        for k in range(count):
            angle = 2 * np.pi * (k + layer) / count
            x, y = layer * 0.36 * np.cos(angle), layer * 0.36 * np.sin(angle)
            head.oval(x, y, layer * long, layer * min(0.22, 1.3 / count), color, angle)
    head.oval(0, 0, 0.2, 0.2, heart)
    head.oval(0, 0, 0.12, 0.12, _light(heart, 0.3))


def _mushroom(pen: Pen, rng: Generator) -> None:
    cap, stalk = _vivid(rng), _light(hsv(0.1, 0.3, 0.9), rng.uniform(0, 0.7))
    wide, high, thick = rng.uniform(0.75, 1.0), rng.uniform(0.7, 1.0), rng.uniform(0.18, 0.32)
    pen.blob(
        [(-thick, 0), (thick, 0), (thick * 1.1, 0.6), (thick * 1.5, 0.95), (-thick * 1.5, 0.95), (-thick * 1.1, 0.6)], stalk
    )
    pen.blob([(thick * 0.5, 0), (thick, 0), (thick * 1.3, 0.94), (thick * 0.7, 0.94)], _dark(stalk, 0.15))
    pen.oval(0, 0.1, wide * 0.95, 0.17, _dark(stalk, 0.3))
    pen.blob(
        [(-wide, 0.12), (-0.85 * wide, -0.45 * high), (0, -high), (0.85 * wide, -0.45 * high), (wide, 0.12), (0, 0.02)], cap
    )
    if _sometimes(rng, 0.75):
        for x, y, r in ((-0.5, -0.3, 0.15), (0.05, -0.62, 0.16), (0.5, -0.3, 0.13), (0, -0.2, 0.11), (-0.2, -0.5, 0.07)):
            pen.oval(x * wide, y * high, r, 0.85 * r, _light(cap, 0.9))


def _tree(pen: Pen, rng: Generator) -> None:
    bark = hsv(rng.uniform(0.05, 0.09), rng.uniform(0.35, 0.6), rng.uniform(0.3, 0.55))
    leaves = _green(rng) if _sometimes(rng, 0.65) else hsv(rng.uniform(-0.03, 0.14), 0.8, 0.85)
    pen.fill([(-0.1, 0.1), (0.1, 0.1), (0.17, 1.0), (-0.17, 1.0)], bark)
    pen.fill([(0.03, 0.1), (0.1, 0.1), (0.17, 1.0), (0.06, 1.0)], _dark(bark, 0.3))
    if _sometimes(rng, 0.35):  # a fir
        for i in range(3):
            wide, low = 0.7 - 0.15 * i, 0.6 - 0.42 * i
            pen.fill([(-wide, low), (0, low - 0.78), (wide, low)], _dark(leaves, 0.3 - 0.12 * i))
            pen.fill([(-wide, low), (0, low - 0.78), (-0.1 * wide, low - 0.06)], mixed(leaves, WHITE, 0.06 * i))
        return
    for color, lift, count, r in (
        (_dark(leaves, 0.3), 0.12, 7, 0.36),
        (leaves, 0.0, 6, 0.32),
        (_light(leaves, 0.25), -0.16, 4, 0.17),
    ):
        for k in range(count):
            angle, out = 2 * np.pi * k / count + rng.random(), rng.uniform(0.25, 0.45) * (1.4 if count > 6 else 1)
            pen.oval(
                out * np.cos(angle) - 0.3 * (count == 4) * 0.5, 0.75 * out * np.sin(angle) - 0.36 + lift, r, 0.9 * r, color
            )


# --- Made by people ------------------------------------------------------------------------------------------------------


def _boat(pen: Pen, rng: Generator) -> None:
    hull, sail, wood = _vivid(rng), (WHITE if _sometimes(rng) else _light(_vivid(rng), 0.3)), hsv(0.08, 0.5, 0.45)
    mast = rng.uniform(-0.15, 0.15)
    pen.stroke([(mast, 0.45), (mast, -0.98)], 0.07, wood)
    pen.blob([(mast + 0.07, -0.9), (mast + 0.42, -0.35), (mast + 0.62, 0.2), (mast + 0.07, 0.24)], sail)
    if _sometimes(rng, 0.7):
        pen.fill([(mast - 0.07, -0.72), (mast - 0.07, 0.22), (mast - 0.58, 0.2)], _dark(sail, 0.14))
    if _sometimes(rng):
        pen.fill([(mast, -1.0), (mast + 0.28, -0.9), (mast, -0.8)], _vivid(rng))
    pen.fill([(-0.95, 0.36), (0.98, 0.36), (0.66, 0.85), (-0.6, 0.85)], hull)
    pen.fill([(-0.95, 0.36), (0.98, 0.36), (0.93, 0.45), (-0.89, 0.45)], _light(hull, 0.6))
    for x in (-0.4, 0.0, 0.4)[: rng.integers(4)]:
        pen.oval(x, 0.62, 0.08, 0.08, _light(hull, 0.8))


def _car(pen: Pen, rng: Generator) -> None:
    paint, rear, roof = _vivid(rng), rng.uniform(0.45, 0.95), rng.uniform(-0.6, -0.42)
    pen.blob([(-0.62, -0.05), (-0.35, roof), (0.1, roof - 0.03), (0.6 * rear, roof), (rear, -0.02), (0.2, 0.1)], paint)
    pen.blob([(-1.0, 0.1), (-0.7, -0.1), (0, -0.12), (0.85, -0.1), (1.0, 0.15), (0.96, 0.4), (0, 0.42), (-0.98, 0.4)], paint)
    pen.fill([(-0.5, -0.08), (-0.3, roof + 0.1), (-0.02, roof + 0.08), (-0.02, -0.08)], GLASS)
    pen.fill([(0.06, -0.08), (0.06, roof + 0.08), (0.52 * rear, roof + 0.1), (0.78 * rear, -0.08)], _dark(GLASS, 0.12))
    pen.stroke([(-0.95, 0.26), (0.95, 0.26)], 0.05, _dark(paint, 0.35))
    pen.stroke([(0.02, 0.0), (0.02, 0.34)], 0.025, _dark(paint, 0.35))
    pen.oval(-0.92, 0.1, 0.08, 0.07, GOLD)
    pen.oval(0.94, 0.1, 0.06, 0.07, ROSE)
    for x in (-0.55, 0.55):
        pen.oval(x, 0.4, 0.25, 0.25, INK)
        pen.oval(x, 0.4, 0.13, 0.13, (206, 206, 212))
        pen.oval(x, 0.4, 0.05, 0.05, INK)


def _cup(pen: Pen, rng: Generator) -> None:
    glaze, band = (_vivid(rng) if _sometimes(rng, 0.7) else WHITE), _vivid(rng)
    foot, high = rng.uniform(0.4, 0.62), rng.uniform(0.5, 0.75)
    if _sometimes(rng):
        pen.oval(-0.08, high, 0.85, 0.16, _dark(glaze, 0.2))
    pen.stroke([(0.5, -0.28), (0.9, -0.3), (0.95, 0.1), (0.5, 0.32)], 0.13, _dark(glaze, 0.15))
    pen.blob(
        [
            (-0.68, -0.42),
            (-0.1, -0.4),
            (0.52, -0.42),
            (foot, 0.5 * high),
            (foot - 0.2, high),
            (-foot, high),
            (-foot - 0.12, 0.4 * high),
        ],
        glaze,
    )
    pen.fill(
        [(0.2, -0.42), (0.52, -0.42), (foot - 0.02, 0.5 * high), (foot - 0.24, 0.97 * high), (0.1, high)], _dark(glaze, 0.1)
    )
    if _sometimes(rng, 0.7):
        pen.stroke([(-0.62, -0.1), (-0.08, 0.0), (0.48, -0.1)], 0.12, band)
    pen.oval(-0.08, -0.42, 0.62, 0.17, _light(glaze, 0.4))
    pen.oval(-0.08, -0.4, 0.52, 0.12, hsv(0.07, 0.7, rng.uniform(0.2, 0.5)))
    for x in (-0.3, 0.1)[: rng.integers(3)]:
        pen.stroke([(x, -0.6), (x + 0.1, -0.76), (x, -0.9), (x + 0.08, -1.02)], 0.06, (232, 232, 236), 0.03)


def _house(pen: Pen, rng: Generator) -> None:
    wall, roof, door = _light(_vivid(rng), rng.uniform(0.2, 0.7)), _vivid(rng), _dark(_vivid(rng), 0.3)
    wide, top, eave = rng.uniform(0.6, 0.85), rng.uniform(-1.0, -0.7), rng.uniform(-0.3, -0.1)
    if _sometimes(rng, 0.7):
        pen.fill([(0.3, -0.9), (0.5, -0.9), (0.5, -0.2), (0.3, -0.2)], _dark(roof, 0.35))
    pen.fill([(-wide, eave), (wide, eave), (wide, 0.9), (-wide, 0.9)], wall)
    pen.fill([(0.55 * wide, eave), (wide, eave), (wide, 0.9), (0.55 * wide, 0.9)], _dark(wall, 0.1))
    pen.fill([(-wide - 0.15, eave + 0.05), (0, top), (wide + 0.15, eave + 0.05)], roof)
    pen.fill([(0.12, top + 0.13), (wide + 0.15, eave + 0.05), (0.6 * wide, eave + 0.05)], _dark(roof, 0.18))
    x = rng.uniform(-0.35, 0.1)
    pen.fill([(x, 0.32), (x + 0.3, 0.32), (x + 0.3, 0.9), (x, 0.9)], door)
    pen.oval(x + 0.24, 0.62, 0.035, 0.035, GOLD)
    for left in (-0.85 * wide, 0.5 * wide):
        pen.fill([(left, 0.08), (left + 0.28, 0.08), (left + 0.28, 0.4), (left, 0.4)], WHITE)
        for dx in (0.03, 0.155):
            pen.fill([(left + dx, 0.11), (left + dx + 0.1, 0.11), (left + dx + 0.1, 0.37), (left + dx, 0.37)], GLASS)


#: What can be drawn, by class name, in the order of the network's scores.
THINGS: Mapping[str, Callable[[Pen, Generator], None]] = MappingProxyType(
    {
        "bird": _bird,
        "boat": _boat,
        "butterfly": _butterfly,
        "car": _car,
        "cat": _cat,
        "cup": _cup,
        "dog": _dog,
        "fish": _fish,
        "flower": _flower,
        "house": _house,
        "mushroom": _mushroom,
        "tree": _tree,
    }
)
