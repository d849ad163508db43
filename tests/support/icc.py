"""Write ICC profiles from known primaries and curves, and compute by formula what their colours are in sRGB."""

import struct
from collections.abc import Callable

import numpy as np

# XYZ of red, green and blue, adapted to D50 by Bradford's matrix (Bruce Lindbloom's tables; Apple's Display P3)
SRGB = ((0.4360747, 0.2225045, 0.0139322), (0.3850649, 0.7168786, 0.0971045), (0.1430804, 0.0606169, 0.7141733))
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.6097559, 0.3111242, 0.0194811), (0.2052401, 0.6256560, 0.0608902), (0.1492240, 0.0632197, 0.7448387))
PROPHOTO = ((0.7976749, 0.2880402, 0.0), (0.1351917, 0.7118741, 0.0), (0.0313534, 0.0000857, 0.8252100))
BT2020 = ((0.6734241, 0.2790177, -0.0019300), (0.1656411, 0.6753402, 0.0299784), (0.1251286, 0.0456377, 0.7973299))
D50 = (0.9642, 1.0, 0.8249)


def srgb_to_linear(values: np.ndarray) -> np.ndarray:
    """IEC 61966-2-1; values 0 to 1."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def xyz_to_srgb(xyz: np.ndarray) -> np.ndarray:
    """Return sRGB, 0 to 255, of XYZ relative to D50 [..., 3]."""
    linear = np.clip(xyz @ np.linalg.inv(np.array(SRGB)), 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def lab_to_srgb(lab: np.ndarray) -> np.ndarray:
    """Return sRGB, 0 to 255, of CIELab relative to D50 [..., 3]."""
    f = (lab[..., 0] + 16) / 116
    f = np.stack([f + lab[..., 1] / 500, f, f - lab[..., 2] / 200], -1)
    return xyz_to_srgb(np.array(D50) * np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)))


def to_srgb(pixels: np.ndarray, colorants: tuple, decode: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return sRGB, 0 to 255, of uint8 pixels in a space with these colorants and this curve."""
    return xyz_to_srgb(decode(pixels / 255) @ np.array(colorants))


# Profiles


def matrix_profile(colorants: tuple, curve: bytes, version: int = 2) -> bytes:
    """Return the profile of an RGB space."""
    tags = {c + b"XYZ": xyz(colorant) for c, colorant in zip((b"r", b"g", b"b"), colorants, strict=True)}
    return profile(b"RGB ", b"XYZ ", version, tags | {c + b"TRC": curve for c in (b"r", b"g", b"b")})


def grey_profile(curve: bytes, version: int = 2) -> bytes:
    """Return the profile of a grey space."""
    return profile(b"GRAY", b"XYZ ", version, {b"kTRC": curve})


def cmyk_profile(labs: dict[tuple[int, int, int, int], tuple[float, float, float]]) -> bytes:
    """Return the profile of a press, as a table of CIELab for each of the 16 combinations of full inks.

    Args:
        labs: by (cyan, magenta, yellow, black), each 0 or 1; what is left out is black.
    """
    nodes = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    # Version 2 encodes L from 0 to 100, and a and b from -128 to 127, as 0 to 0xFF00
    values = np.array([labs.get(node, (0, 0, 0)) for node in nodes])
    table = np.round((values + np.array([0, 128, 128])) * (652.8, 256, 256)).astype(">u2").tobytes()
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    curves = struct.pack(">2H", 0, 65535)
    lut = b"mft2\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + struct.pack(">2H", 2, 2) + 4 * curves + table + 3 * curves
    return profile(b"CMYK", b"Lab ", 2, {b"A2B0": lut}, b"prtr")


def profile(space: bytes, connection: bytes, version: int, tags: dict[bytes, bytes], class_: bytes = b"mntr") -> bytes:
    """Return an ICC profile (ICC.1:2001 and ICC.1:2022)."""
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0\0\0\0", b"wtpt": xyz(D50), **tags}
    table, contents, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", at + len(contents), len(content))
        contents += content + bytes(-len(content) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12x4s", at + len(contents), b"none", version << 24, class_, space, connection, b"acsp"
    )
    return (header + bytes(28) + xyz(D50)[8:]).ljust(128, b"\0") + table + contents


def xyz(values: tuple) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))


def gamma_curve(gamma: float) -> bytes:
    """Version 2: one number with 8 bits after the point."""
    return b"curv\0\0\0\0" + struct.pack(">IHH", 1, round(gamma * 256), 0)


def parametric_gamma(gamma: float) -> bytes:
    """Version 4."""
    return b"para\0\0\0\0" + struct.pack(">HHi", 0, 0, round(gamma * 65536))


def parametric_srgb() -> bytes:
    """Version 4: the curve of sRGB and Display P3."""
    numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return b"para\0\0\0\0" + struct.pack(">HH5i", 3, 0, *(round(number * 65536) for number in numbers))


def sampled_curve(decode: Callable[[np.ndarray], np.ndarray], entries: int = 1024) -> bytes:
    """Both versions: a table."""
    values = np.round(65535 * decode(np.linspace(0, 1, entries))).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", entries) + values.tobytes()
