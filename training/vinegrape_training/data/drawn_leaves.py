"""Synthetic leaves: five kinds that replace the five varieties in tests, self-checks and documentation.

The kinds have the varieties' names, so that the class folders are the same. They are NOT those varieties: no shape or
colour is measured from a real leaf, and a model trained on them cannot recognise grapevines.

The self-check images of archives are drawn here. Any change of a number or of the order of random draws changes them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFilter

from vinegrape_training.data.leaf_shape import Kind, Points, Shape, Vein, grow
from vinegrape_training.progress import progress

KINDS = {
    # three lobes, shallow bays, small, yellow-green
    "Ak": Kind(
        lobes=((0, 1.0), (62, 0.86), (128, 0.62)),
        bays=(0.66, 0.56, 0.10),
        fullness=0.35, teeth=8, tooth=0.06, aspect=1.0, coverage=0.17,
        heart=(142, 160, 78), margin=(126, 150, 66),
    ),
    # five lobes, deep bays, large, blue-green
    "Ala_Idris": Kind(
        lobes=((0, 1.1), (52, 0.94), (108, 0.76), (150, 0.56)),
        bays=(0.52, 0.50, 0.56, 0.10),
        fullness=0.62, teeth=9, tooth=0.055, aspect=1.0, coverage=0.34,
        heart=(88, 116, 84), margin=(66, 98, 76),
    ),
    # nearly round, fine teeth, dark green
    "Buzgulu": Kind(
        lobes=((0, 1.0), (48, 0.98), (98, 0.92), (146, 0.76)),
        bays=(0.90, 0.86, 0.80, 0.12),
        fullness=0.5, teeth=9, tooth=0.05, aspect=1.06, coverage=0.46,
        heart=(72, 92, 44), margin=(52, 72, 36),
    ),
    # a star of five narrow lobes, coarse teeth, turning red
    "Dimnit": Kind(
        lobes=((0, 1.0), (58, 0.95), (122, 0.74)),
        bays=(0.34, 0.32, 0.10),
        fullness=0.40, teeth=6, tooth=0.085, aspect=1.0, coverage=0.26,
        heart=(134, 96, 50), margin=(146, 50, 44),
    ),
    # long, coarse teeth, turning yellow
    "Nazli": Kind(
        lobes=((0, 1.15), (46, 0.88), (104, 0.70), (150, 0.58)),
        bays=(0.70, 0.60, 0.56, 0.16),
        fullness=0.45, teeth=5, tooth=0.10, aspect=0.76, coverage=0.28,
        heart=(166, 160, 66), margin=(204, 166, 58),
    ),
}  # fmt: skip

_OVERSAMPLING = 3  # polygons are drawn 3 times larger and averaged, because Pillow does not antialias them
_VEIN_RGB = (196, 200, 138)
_STALK_RGB = (150, 132, 84)

Plane = NDArray[np.float32]  # [side, side], or [side, side, 3] for colours


def draw_leaf(kind: str, rng: np.random.Generator, side: int = 511) -> Image.Image:
    """Draw one leaf of a kind, with its tip down, on a transparent background.

    Args:
        kind: a key of `KINDS`.
        rng: generator of all random numbers; the same state gives the same leaf at any `side`.
        side: width and height of the image, in pixels.

    Returns:
        Image of mode RGBA, [side, side]. Alpha is 0 outside the leaf, which covers 10 to 60 % of the image.
    """
    spec = KINDS[kind]
    shape = _place(grow(spec, rng), spec.coverage, rng)
    blade = _mask([shape.outline], side)
    veins = _mask([_ribbon(vein) for vein in shape.veins], side)
    stalk = _mask([_ribbon(shape.stalk)], side)
    colours = _paint(spec, blade, veins, stalk, rng)
    alpha = np.maximum(blade, stalk)
    colours[alpha == 0] = 255
    pixels = np.dstack([colours, alpha * 255])
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "RGBA")


def draw_dataset(folder: Path, images_per_class: int, seed: int, side: int = 256) -> None:
    """Draw a data set with the layout of the real one: one folder per class, files named like "Ak (1).png".

    Every image has its own generator, made from seed, class and number. So a larger data set begins with the images of
    a smaller one, and a seed gives the same bytes with the same versions of Pillow and NumPy.

    Args:
        folder: created if it does not exist. Images of the same name are replaced.
        images_per_class: number of images of each of the five kinds.
        seed: at least 0.
        side: width and height of the images, in pixels.
    """
    for kind in KINDS:
        (folder / kind).mkdir(parents=True, exist_ok=True)
    images = [(kind, number) for kind in KINDS for number in range(1, images_per_class + 1)]
    for kind, number in progress(images, "Drawing leaves"):
        image = draw_leaf(kind, image_rng(seed, kind, number), side)
        image.save(folder / kind / f"{kind} ({number}).png")


def image_rng(seed: int, kind: str, number: int) -> np.random.Generator:
    """Return the random generator of one image of `draw_dataset`."""
    return np.random.default_rng([seed, list(KINDS).index(kind), number])


def _place(shape: Shape, coverage: float, rng: np.random.Generator) -> Shape:
    """Rotate a leaf so that its tip points down, scale it, and place it in a square with sides from 0 to 1."""
    turn = 1j * np.exp(1j * rng.normal(0, 0.16))
    area = abs(np.sum((shape.outline.conj() * np.roll(shape.outline, -1)).imag)) / 2  # shoelace formula
    everything = np.concatenate([shape.outline, shape.stalk.points]) * turn
    low = complex(everything.real.min(), everything.imag.min())
    extent = complex(everything.real.max(), everything.imag.max()) - low
    scale = min(np.sqrt(coverage * rng.uniform(0.88, 1.12) / area), 0.97 / max(extent.real, extent.imag))
    spare = (1 - scale * extent.real) + 1j * (1 - scale * extent.imag)
    corner = spare.real * rng.uniform(0.35, 0.65) + 1j * spare.imag * rng.uniform(0.35, 0.65)

    def move(points: Points) -> Points:
        return np.asarray((points * turn - low) * scale + corner, dtype=np.complex128)

    return Shape(
        outline=move(shape.outline),
        veins=tuple(Vein(move(vein.points), vein.width * scale) for vein in shape.veins),
        stalk=Vein(move(shape.stalk.points), shape.stalk.width * scale),
    )


def _ribbon(vein: Vein) -> Points:
    """Return the closed outline of a line whose width decreases to a quarter."""
    ahead = np.gradient(vein.points)
    across = 1j * ahead / np.abs(ahead) * np.linspace(vein.width, vein.width / 4, len(ahead)) / 2
    return np.concatenate([vein.points + across, (vein.points - across)[::-1]])


def _mask(polygons: list[Points], side: int) -> Plane:
    """Fill polygons with antialiasing: [side, side], 0 to 1."""
    large = Image.new("L", (side * _OVERSAMPLING,) * 2)
    draw = ImageDraw.Draw(large)
    for points in polygons:
        scaled = points * side * _OVERSAMPLING
        draw.polygon(np.column_stack([scaled.real, scaled.imag]).ravel().tolist(), fill=255)
    return _plane(large.reduce(_OVERSAMPLING))


def _noise(rng: np.random.Generator, cells: int, side: int) -> Plane:
    """Draw smooth noise with about `cells` maxima per side: [side, side], mean 0, standard deviation about 0.6."""
    grid = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((side, side), Image.Resampling.BICUBIC), dtype=np.float32)


def _blur(plane: Plane, radius: float) -> Plane:
    """Apply a Gaussian blur; the radius is in pixels."""
    image = Image.fromarray((np.clip(plane, 0, 1) * 255).astype(np.uint8))
    return _plane(image.filter(ImageFilter.GaussianBlur(radius)))


def _plane(image: Image.Image) -> Plane:
    """Convert an 8-bit grey image to values from 0 to 1."""
    return np.asarray(image, dtype=np.float32) / np.float32(255)


def _paint(spec: Kind, blade: Plane, veins: Plane, stalk: Plane, rng: np.random.Generator) -> Plane:
    """Colour the leaf, [side, side, 3], 0 to 255: base colour, light from the upper left, veins, stalk."""
    side = len(blade)
    tint = rng.normal(1, 0.025, 3) * rng.normal(1, 0.04)
    inner = np.clip(2.2 * _blur(blade, side * 0.05) - 1.15 + 0.12 * _noise(rng, 9, side), 0, 1)
    colours = _mix(_plain(spec.margin * tint, side), _plain(spec.heart * tint, side), inner)
    light = 1 + _relief(blade, veins, side, rng) + 0.05 * _noise(rng, 6, side)
    colours = _mix(colours * light[..., None], _plain(_VEIN_RGB, side), 0.42 * veins)
    shadow = _blur(np.roll(stalk, max(1, side // 200), axis=1), side * 0.006)
    rounded = 0.9 + 0.3 * (stalk - shadow)
    return _mix(colours, _plain(_STALK_RGB, side) * rounded[..., None], stalk)


def _plain(rgb: ArrayLike, side: int) -> Plane:
    """Return an image of one colour, [side, side, 3]."""
    return np.broadcast_to(np.asarray(rgb, dtype=np.float32), (side, side, 3))


def _mix(under: Plane, over: Plane, share: Plane) -> Plane:
    """Blend two images [side, side, 3]; `share` [side, side], 0 to 1, is the weight of `over`."""
    return np.asarray(under + (over - under) * share[..., None], dtype=np.float32)


def _relief(blade: Plane, veins: Plane, side: int, rng: np.random.Generator) -> Plane:
    """Compute light and shadow of a surface that is curved between its veins: [side, side], around 0."""
    height = 0.9 * _blur(veins, side * 0.005) + 0.5 * _blur(veins, side * 0.014)
    height = height + 0.16 * _noise(rng, 34, side) + 0.35 * _noise(rng, 11, side)
    height = height + 0.5 * _blur(blade, side * 0.006)
    down, right = np.gradient(height, 4 / side)
    return np.asarray(np.clip(0.016 * (down + right), -0.35, 0.35), dtype=np.float32)
