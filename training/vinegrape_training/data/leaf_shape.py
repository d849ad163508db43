"""Geometry of a synthetic leaf: outline, veins and stalk.

Coordinates have no unit: the stalk meets the blade at 0, and the middle lobe points along +1 and is about 1 long.
Points are complex numbers, so that rotation and scaling are multiplications.

The self-check images of archives depend on this file. Any change of a number or of the order of random draws changes
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.complex128]
Floats = NDArray[np.float64]

_STEPS = 120  # points between the tip of a lobe and the bottom of the next bay


@dataclass(frozen=True)
class Kind:
    """Parameters of one kind of leaf. Lengths are relative to the middle lobe.

    Attributes:
        lobes: angle from the middle lobe (degrees) and length of each lobe of one side, from the middle to the base.
        bays: distance from 0 to the bottom of the bay after each lobe; the last bay is the one around the stalk.
        fullness: 0 for lobes with straight sides, 1 for lobes with convex sides.
        teeth: number of teeth per unit of margin length.
        tooth: height of a tooth.
        aspect: width divided by length, relative to the shape that the lobes give.
        coverage: fraction of the image that the blade covers, before random variation.
        heart: RGB in the middle of the blade, 0 to 255.
        margin: RGB at the margin of the blade, 0 to 255.
    """

    lobes: tuple[tuple[float, float], ...]
    bays: tuple[float, ...]
    fullness: float
    teeth: float
    tooth: float
    aspect: float
    coverage: float
    heart: tuple[int, int, int]
    margin: tuple[int, int, int]


@dataclass(frozen=True)
class Vein:
    """A line along `points` [P] whose width decreases from `width` to a quarter of it."""

    points: Points
    width: float


@dataclass(frozen=True)
class Shape:
    """One leaf: the closed outline [P] of its blade, its veins in ascending order of width, and its stalk."""

    outline: Points
    veins: tuple[Vein, ...]
    stalk: Vein


@dataclass(frozen=True)
class _Lobe:
    """One lobe after random variation. Angles are in radians; `before` and `after` are those of the bays beside it."""

    angle: float
    length: float
    before: float
    after: float


def grow(kind: Kind, rng: np.random.Generator) -> Shape:
    """Create one leaf of a kind with small random variation."""
    knots = _knots(kind, rng)
    base, outline = _outline(kind, knots, rng)
    lobes = [_Lobe(*knots[i], knots[i - 1][0], knots[i + 1][0]) for i in range(1, len(knots) - 1, 2)]
    veins = _veins(lobes, base, rng)
    bend = rng.normal(0, 0.10)
    return Shape(
        outline=_deform(outline, kind.aspect, bend),
        veins=tuple(Vein(_deform(vein.points, kind.aspect, bend), vein.width) for vein in veins),
        stalk=_stalk(rng),
    )


def _deform(points: Points, aspect: float, bend: float) -> Points:
    """Scale the width of the leaf and bend its long axis slightly."""
    scaled = points.real + 1j * points.imag * aspect
    return np.asarray(scaled * np.exp(1j * bend * points.real), dtype=np.complex128)


def _knots(kind: Kind, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Return (angle, radius) of bays and tips, alternating; the stalk's bay is the first and the last.

    Angles are in radians, -pi to pi.
    """
    stalk_bay = kind.bays[-1] * rng.uniform(0.7, 1.3)
    left, right = _side(kind, -1, rng), _side(kind, 1, rng)
    middle = (rng.normal(0, 0.03), kind.lobes[0][1] * rng.normal(1, 0.04))
    return [(-np.pi, stalk_bay), *reversed(left), middle, *right, (np.pi, stalk_bay)]


def _side(kind: Kind, sign: int, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Return the knots of one side, from the first bay after the middle lobe to the last lobe."""
    knots = []
    for ((before, _), (angle, length)), bay in zip(pairwise(kind.lobes), kind.bays[:-1], strict=True):
        between = (before + angle) / 2 + rng.normal(0, 2)
        knots.append((sign * np.radians(between), bay * rng.normal(1, 0.07)))
        knots.append((sign * np.radians(angle + rng.normal(0, 2.5)), length * rng.normal(1, 0.04)))
    return knots


def _outline(kind: Kind, knots: list[tuple[float, float]], rng: np.random.Generator) -> tuple[Points, Points]:
    """Return the margin without teeth and with teeth, [P] each."""
    base, toothed = [], []
    for i in range(len(knots) - 1):
        tip, bay = (knots[i], knots[i + 1]) if i % 2 else (knots[i + 1], knots[i])
        at_stalk = i in (0, len(knots) - 2)
        margin = _margin(tip, bay, kind.fullness)
        teeth = _teeth(margin, tip[0], kind, at_stalk, rng)
        order = slice(None) if i % 2 else slice(None, None, -1)
        base.append(margin[order])
        toothed.append((margin + teeth)[order])
    return np.concatenate(base), np.concatenate(toothed)


def _margin(tip: tuple[float, float], bay: tuple[float, float], fullness: float) -> Points:
    """Return the smooth margin from the tip of a lobe to the bottom of a bay."""
    fraction = np.linspace(0, 1, _STEPS)
    # near the bottom of the bay the angle changes more slowly than the radius, which makes the bay round
    angle = tip[0] + (bay[0] - tip[0]) * np.sin(fraction * np.pi / 2) ** 1.15
    fall = (1 - fullness) * np.sin(fraction * np.pi / 2) + fullness * fraction**2.6
    radius = tip[1] + (bay[1] - tip[1]) * fall
    return np.asarray(radius * np.exp(1j * angle), dtype=np.complex128)


def _teeth(margin: Points, lobe_angle: float, kind: Kind, at_stalk: bool, rng: np.random.Generator) -> Points:
    """Return the offset of each margin point that forms the teeth: largest at the tip, zero in the bay."""
    along = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(margin)))])
    fraction = along / along[-1]
    count = max(1, round(along[-1] * kind.teeth))
    phase = fraction * (count + 0.5)
    number = np.rint(phase).astype(int)
    saw = 1 - 2 * np.abs(phase - number)  # 1 on a tooth, 0 between two
    height = kind.tooth * rng.uniform(0.65, 1.2, count + 2)
    height[1::2] *= 0.7
    height[0] = kind.tooth * 1.2
    fading = np.clip((1 - fraction) / (0.45 if at_stalk else 0.3), 0, 1)
    ahead = np.gradient(margin)
    ahead /= np.abs(ahead)
    counterclockwise = np.angle(margin[-1] / margin[0]) > 0
    outward = ahead * (-1j if counterclockwise else 1j) - 0.6 * ahead  # teeth point towards the tip
    at_tip = np.exp(-((phase / 0.5) ** 2))  # both sides of a lobe must meet at its tip
    outward = outward * (1 - at_tip) + np.exp(1j * lobe_angle) * at_tip
    return np.asarray(saw**1.2 * height[number] * fading * outward, dtype=np.complex128)


def _veins(lobes: list[_Lobe], base: Points, rng: np.random.Generator) -> list[Vein]:
    """Return one main vein per lobe, its side veins, and finer veins of those, in ascending order of width."""
    main, side, fine = [], [], []
    edge = np.angle(base)
    edge[0] = -np.pi
    order = np.argsort(edge)
    edge, reach = edge[order], np.abs(base)[order]
    for lobe in lobes:
        trunk = _trunk(lobe, rng)
        main.append(Vein(trunk, 0.026 * lobe.length**0.5))
        for branch in _branches(trunk, 11, 46, 0.85, rng):
            branch = _inside(branch, lobe, edge, reach)
            if len(branch) < 4:
                continue
            side.append(Vein(branch, 0.009))
            length = float(np.abs(branch[-1] - branch[0]))
            for twig in _branches(branch, max(2, round(length * 16)), 62, 0.3, rng):
                fine.append(Vein(_inside(twig, lobe, edge, reach), 0.0028))
    return [vein for vein in (*fine, *side, *main) if len(vein.points) > 2]


def _trunk(lobe: _Lobe, rng: np.random.Generator) -> Points:
    """Return a main vein [24] from the stalk almost to the tip of a lobe."""
    fraction = np.linspace(0, 1, 24)
    sway = rng.normal(0, 0.05) * np.sin(fraction * np.pi)
    return np.asarray(fraction * lobe.length * 0.99 * np.exp(1j * (lobe.angle + sway)), dtype=np.complex128)


def _branches(trunk: Points, count: int, angle: float, length: float, rng: np.random.Generator) -> list[Points]:
    """Return branches [16] on alternating sides of a trunk. Their angle (degrees) decreases towards their end."""
    whole = np.abs(trunk[-1] - trunk[0])
    starts = (np.arange(count) + rng.uniform(0.6, 1.0)) / (count + 0.5)
    fraction = np.linspace(0, 1, 16)
    branches = []
    for i, start in enumerate(starts):
        position = start * (len(trunk) - 1)
        index = min(int(position), len(trunk) - 2)
        ahead = trunk[index + 1] - trunk[index]
        root = trunk[index] + ahead * (position - index)
        turn = np.radians(angle + rng.normal(0, 3)) * (1 if i % 2 else -1)
        bow = turn * (1 - 0.45 * fraction)
        step = ahead / np.abs(ahead) * np.exp(1j * bow) * whole * length * (1.05 - 0.5 * start) / 15
        branches.append(np.concatenate([[root], root + np.cumsum(step[:-1])]))
    return branches


def _inside(points: Points, lobe: _Lobe, edge: Floats, reach: Floats) -> Points:
    """Return the part of a vein that is inside its lobe."""
    angle = np.angle(points)
    out = (angle < lobe.before) | (angle > lobe.after) | (np.abs(points) > np.interp(angle, edge, reach))
    return points[: int(np.argmax(out))] if out.any() else points


def _stalk(rng: np.random.Generator) -> Vein:
    """Return the stalk: a slightly curved line from the blade backwards."""
    fraction = np.linspace(0, 1, 24)
    turn = np.pi + rng.normal(0, 0.16) + rng.normal(0, 0.35) * fraction
    points = fraction * rng.uniform(0.62, 0.8) * np.exp(1j * turn)
    return Vein(np.asarray(points, dtype=np.complex128), 0.042)
