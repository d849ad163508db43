"""Convert images to sRGB, from the colour space that their file states."""

from __future__ import annotations

import hashlib
import io
import math
import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import lru_cache
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

Info: TypeAlias = dict[str | tuple[int, int], Any]
"""`Image.info`, as Pillow types it."""

Signals: TypeAlias = NDArray[np.float64]
"""Values of one channel, or the light that they stand for: float64, 0 to 1."""

# The largest profiles of printing presses have about 3 MB
MAX_PROFILE_BYTES = 4_000_000

_MAX_TRANSFORMS = 16  # kept; one needs up to 0.5 MB
_MAX_TAGS = 100  # of a profile; real ones have up to 30

# littleCMS gets only what it needs to convert colours to sRGB, in the types whose cost the profile's size bounds. A
# multiProcessElementsType (the tags D2B0 to D2B3) can name the same large table any number of times.
_CURVE_TYPES = (b"curv", b"para")
_TAG_TYPES: dict[bytes, tuple[bytes, ...]] = {
    b"A2B0": (b"mft1", b"mft2", b"mAB "),
    b"wtpt": (b"XYZ ",),
    b"chad": (b"sf32",),
    **{channel + b"XYZ": (b"XYZ ",) for channel in (b"r", b"g", b"b")},
    **{channel + b"TRC": _CURVE_TYPES for channel in (b"r", b"g", b"b", b"k")},
}
_COLOUR_SPACES = {"L": b"GRAY", "RGB": b"RGB ", "CMYK": b"CMYK"}

# Profiles of sRGB differ from each other by rounding, and by how they write its curve near black
_SRGB_TOLERANCE = 2

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_LAB = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))

# x and y of white, red, green and blue, by their number in ITU-T H.273 (which cICP refers to), table 2
_D65 = (0.3127, 0.329)
_SRGB_PRIMARIES = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_ADOBE_RGB_PRIMARIES = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_PRIMARIES = {
    1: _SRGB_PRIMARIES,
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_ADOBE_RGB_GAMMA = 563 / 256
# gAMA of files whose pixels are sRGB, as the PNG specification recommends it beside the chunk sRGB. Many files have it
# without that chunk
_SRGB_GAMMA = 0.45455
_GAMMA_TOLERANCE = 0.0005
_PRIMARIES_TOLERANCE = 0.001
_MIN_GAMMA, _MAX_GAMMA = 0.1, 10  # beyond, an image is black and white

# Exif's entry InteroperabilityIndex "R03", by which DCF 2.0 marks Adobe RGB, and the non-standard ColorSpace 2 of some
# cameras; in both byte orders. Twelve bytes do not occur by chance
_ADOBE_RGB_ENTRIES = (
    struct.pack("<HHI4s", 1, 2, 4, b"R03"),
    struct.pack(">HHI4s", 1, 2, 4, b"R03"),
    struct.pack("<HHIHH", 0xA001, 3, 1, 2, 0),
    struct.pack(">HHIHH", 0xA001, 3, 1, 2, 0),
)

_MAX_COLORANT = 100  # XYZ, where white is about 1
# Bradford's matrix, which ICC profiles use, and their white, D50
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_D50 = np.array([0.9642, 1.0, 0.8249])

_SIGNALS: Signals = np.arange(256) / 255

_transforms: OrderedDict[tuple[bytes, str], ImageCms.ImageCmsTransform | None] = OrderedDict()
_lock = Lock()


def to_srgb(image: Image.Image, info: Info, side: int) -> Image.Image:
    """Convert an image to sRGB.

    Its colour space is, in the order in which it counts: the PNG chunk cICP, an ICC profile, the PNG chunks sRGB, or
    gAMA and cHRM, Exif's mark of Adobe RGB. Without any, the image is sRGB already. A profile that is damaged, too
    large, or for another kind of image is ignored.

    Before its colours are converted, a large image is scaled down to at least twice the size that it will have, so that
    the cost has a bound. JPEGs are scaled in the same way by their decoder, see `decode`.

    Args:
        image: mode L, LA, RGB, RGBA, CMYK or LAB.
        info: what stands beside the pixels, with the keys that Pillow and `png` write into `Image.info`.
        side: pixels to which the longer side will be resized.

    Returns:
        The image in RGB or RGBA, or `image` itself if it needs no conversion.
    """
    mode = "L" if image.mode == "LA" else "RGB" if image.mode == "RGBA" else image.mode
    transform = _find_transform(info, mode)
    if transform is None:
        return image
    factor = max(image.size) // (2 * side)
    if factor > 1:
        image = image.reduce(factor)
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    converted = transform.apply(image.convert(transform.input_mode))
    if alpha:
        converted.putalpha(alpha)
    return converted


def _find_transform(info: Info, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion of an image with this `info` and this mode without alpha; None if it needs none."""
    if mode == "LAB":
        return _transform(b"", mode)
    if mode in ("L", "RGB") and "cicp" in info:
        profile = _from_cicp(*info["cicp"])
        if profile is not None:
            return _transform(profile, "RGB")
    profile = info.get("icc_profile")
    if isinstance(profile, bytes) and _is_for(profile, mode):  # a damaged TIFF has anything there
        return _transform(profile, mode)
    if mode == "CMYK" or "srgb" in info:
        return None
    if "gamma" in info or "chromaticity" in info:
        return _transform(_from_gamma(info.get("gamma"), info.get("chromaticity", _SRGB_PRIMARIES)), "RGB")
    exif = info.get("exif", b"")
    if any(entry in exif for entry in _ADOBE_RGB_ENTRIES):
        return _transform(_adobe_rgb(), "RGB")
    return None


def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion from a profile to sRGB; None if there is nothing to convert. The last ones are kept.

    Args:
        profile: an ICC profile. Empty for mode LAB, which needs none, and for sRGB.
        mode: L, RGB, CMYK or LAB.
    """
    if not profile and mode != "LAB":
        return None
    key = (hashlib.blake2b(profile, digest_size=32).digest(), mode)
    with _lock:
        if key not in _transforms:
            _transforms[key] = _build(profile, mode)
            if len(_transforms) > _MAX_TRANSFORMS:
                _transforms.popitem(last=False)
        _transforms.move_to_end(key)
        return _transforms[key]


def _build(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    try:
        source = _LAB if mode == "LAB" else ImageCms.ImageCmsProfile(io.BytesIO(_only_used_tags(profile)))
        transform = ImageCms.ImageCmsTransform(source, _SRGB, mode, "RGB")  # perceptual, as browsers do
    except (OSError, ValueError, struct.error, ImageCms.PyCMSError):  # damaged, or without the tags for this conversion
        return None
    return None if mode == "RGB" and _changes_nothing(transform) else transform


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Return whether a conversion changes none of 729 colours: its profile is one of the many that describe sRGB."""
    levels = np.linspace(0, 255, 9).astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    converted = np.asarray(transform.apply(Image.fromarray(colours)))
    return int(np.abs(converted.astype(int) - colours).max()) <= _SRGB_TOLERANCE


def _is_for(profile: bytes, mode: str) -> bool:
    """Return whether this is a profile, of a size that we read, for images of this mode."""
    is_profile = len(profile) <= MAX_PROFILE_BYTES and profile[36:40] == b"acsp"
    return is_profile and profile[16:20] == _COLOUR_SPACES[mode]


def _only_used_tags(profile: bytes) -> bytes:
    """Return a profile with the tags in `_TAG_TYPES` only.

    Raises:
        ValueError, struct.error: the profile is damaged.
    """
    (count,) = struct.unpack_from(">I", profile, 128)
    if count > _MAX_TAGS:
        raise ValueError(f"{count} tags")
    tags = {}
    for index in range(count):
        name, start, size = struct.unpack_from(">4sII", profile, 132 + 12 * index)
        content = profile[start : start + size]
        if len(content) == size and content[:4] in _TAG_TYPES.get(name, ()) and _has_whole_table(content):
            tags[name] = content
    return _write_profile(profile[:128], tags)


def _has_whole_table(tag: bytes) -> bool:
    """Return whether the table of colours that a tag announces is in it; littleCMS allocates it before it reads it."""
    inputs, outputs = tag[8:10] if len(tag) >= 32 else (0, 0)
    if tag[:4] in (b"mft1", b"mft2"):
        return math.prod(tag[10:11] * inputs) * outputs <= len(tag)
    if tag[:4] == b"mAB ":
        at = int.from_bytes(tag[24:28], "big")
        return at == 0 or math.prod(tag[at : at + inputs]) * outputs <= len(tag)
    return True


def _write_profile(header: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Write an ICC profile; header has 128 bytes, of which the first four, the size, are replaced."""
    table, contents = [], []
    at = 132 + 12 * len(tags)
    offsets: dict[bytes, int] = {}  # equal contents are written once, as the three curves of most profiles
    for name, content in tags.items():
        if content not in offsets:
            offsets[content] = at
            contents.append(content + bytes(-len(content) % 4))
            at += len(contents[-1])
        table.append(struct.pack(">4sII", name, offsets[content], len(content)))
    return b"".join([struct.pack(">I", at), header[4:], struct.pack(">I", len(tags)), *table, *contents])


def _matrix_profile(primaries: Sequence[float], curve: NDArray[np.float64]) -> bytes:
    """Write the ICC profile of an RGB space; empty if there is no such space.

    Args:
        primaries: x and y of white, red, green and blue.
        curve: the linear light, 0 to 1, of each of 256 values.
    """
    try:
        colorants = _colorants(primaries)
    except (np.linalg.LinAlgError, ZeroDivisionError):
        return b""
    if not np.isfinite(colorants).all() or np.abs(colorants).max() > _MAX_COLORANT:
        return b""
    light = np.round(65535 * curve.clip(0, 1)).astype(">u2")
    tags = {b"wtpt": _xyz(_D50)}
    for channel, colorant in zip((b"r", b"g", b"b"), colorants.T, strict=True):
        tags[channel + b"XYZ"] = _xyz(colorant)
        tags[channel + b"TRC"] = struct.pack(">4sII", b"curv", 0, len(light)) + light.tobytes()
    header = struct.pack(">8xI4s4s4s12x4s28x", 0x04300000, b"mntr", b"RGB ", b"XYZ ", b"acsp") + _xyz(_D50)[8:]
    return _write_profile(header.ljust(128, b"\0"), tags)


def _colorants(primaries: Sequence[float]) -> NDArray[np.float64]:
    """Return the XYZ of red, green and blue as columns [3, 3], adapted to D50 (ICC.1:2022, annex E)."""
    white, *channels = (
        np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(primaries[::2], primaries[1::2], strict=True)
    )
    matrix = np.stack(channels, 1)
    matrix = matrix * np.linalg.solve(matrix, white)
    scale = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adapted: NDArray[np.float64] = np.linalg.solve(_BRADFORD, scale[:, None] * (_BRADFORD @ matrix))
    return adapted


def _xyz(values: NDArray[np.float64]) -> bytes:
    return struct.pack(">4sI3i", b"XYZ ", 0, *(round(65536 * float(value)) for value in values))


@lru_cache(maxsize=1)
def _adobe_rgb() -> bytes:
    return _matrix_profile(_ADOBE_RGB_PRIMARIES, _SIGNALS**_ADOBE_RGB_GAMMA)


@lru_cache(maxsize=_MAX_TRANSFORMS)
def _from_gamma(gamma: float | None, primaries: tuple[float, ...]) -> bytes:
    """Write the profile of an image with the PNG chunks gAMA and cHRM; empty for sRGB and for invalid values.

    Args:
        gamma: of gAMA; None if there is only cHRM: then the curve is sRGB's.
        primaries: of cHRM, or sRGB's.
    """
    if np.allclose(primaries, _SRGB_PRIMARIES, rtol=0, atol=_PRIMARIES_TOLERANCE):
        if gamma is None or abs(gamma - _SRGB_GAMMA) < _GAMMA_TOLERANCE:
            return b""
        primaries = _SRGB_PRIMARIES
    if gamma is not None and not _MIN_GAMMA <= gamma <= _MAX_GAMMA:
        return b""
    return _matrix_profile(primaries, _from_srgb(_SIGNALS) if gamma is None else _SIGNALS ** (1 / gamma))


@lru_cache(maxsize=_MAX_TRANSFORMS)
def _from_cicp(primaries: int, transfer: int, matrix: int, full_range: int) -> bytes | None:
    """Write the profile of an image with the PNG chunk cICP; None for values that we do not know, empty for sRGB."""
    if primaries not in _PRIMARIES or transfer not in _TRANSFERS or matrix != 0 or full_range > 1:
        return None
    if (primaries, transfer, full_range) == (1, 13, 1):
        return b""
    # Narrow range: 16 is black and 235 is white (ITU-R BT.2100, table 9)
    signals = _SIGNALS if full_range else ((255 * _SIGNALS - 16) / 219).clip(0, 1)
    return _matrix_profile(_PRIMARIES[primaries], _TRANSFERS[transfer](signals))


def _from_srgb(signals: Signals) -> Signals:
    """IEC 61966-2-1."""
    return np.where(signals <= 0.04045, signals / 12.92, ((signals + 0.055) / 1.055) ** 2.4)


def _from_bt709(signals: Signals) -> Signals:
    """The inverse of the camera's curve in ITU-R BT.709."""
    return np.where(signals < 0.081, signals / 4.5, ((signals + 0.099) / 1.099) ** (1 / 0.45))


def _from_smpte_240m(signals: Signals) -> Signals:
    return np.where(signals < 0.0912, signals / 4, ((signals + 0.1115) / 1.1115) ** (1 / 0.45))


def _from_pq(signals: Signals) -> Signals:
    """ITU-R BT.2100, table 4.

    The reference white, 203 cd/m2 (ITU-R BT.2408), becomes white; what is brighter is clipped.
    """
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    root = signals ** (1 / m2)
    return 10_000 / 203 * ((root - c1).clip(0) / (c2 - c3 * root)) ** (1 / m1)


def _from_hlg(signals: Signals) -> Signals:
    """ITU-R BT.2100, table 5, for a display of 1000 cd/m2 (gamma 1.2), per channel.

    The reference white is a signal of 75 % (ITU-R BT.2408), as for PQ.
    """
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(signals <= 0.5, signals**2 / 3, (np.exp((signals - c) / a) + b) / 12)
    reference = (math.exp((0.75 - c) / a) + b) / 12
    return (scene / reference) ** 1.2


# The linear light of a signal, 0 to 1, by its number in ITU-T H.273, table 3
_TRANSFERS: dict[int, Callable[[Signals], Signals]] = {
    1: _from_bt709,
    4: lambda signals: signals**2.2,
    5: lambda signals: signals**2.8,
    6: _from_bt709,
    7: _from_smpte_240m,
    8: lambda signals: signals,
    13: _from_srgb,
    14: _from_bt709,
    15: _from_bt709,
    16: _from_pq,
    17: lambda signals: 52.37 / 48 * signals**2.6,
    18: _from_hlg,
}
