"""Each TIFF is read as its values say, or refused with the reason. The files are written value by value."""

import struct

import numpy as np
import pytest
from PIL import Image

from tests.support import icc
from tests.support.images import encode
from tests.support.tiff import (
    BLACK_IS_ZERO,
    CMYK,
    DEFLATE,
    FLOAT,
    JPEG,
    LAB,
    NONE,
    PACKBITS,
    PALETTE,
    RGB,
    SIGNED,
    UNSIGNED,
    WHITE_IS_ZERO,
    YCBCR,
    tiff,
)
from vinegrape_handler.errors import BrokenImage, UnsupportedFormat
from vinegrape_handler.images.decode import Limits, decode

LIMITS = Limits(max_bytes=1_000_000, max_pixels=1_000_000)
RNG = np.random.default_rng(0)
CHANNELS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, CMYK: 4}
ORDERS = ["<", ">"]


def pixels(data) -> np.ndarray:
    return np.asarray(decode(data, LIMITS, 64)).astype(int)


def values(bits: int, channels: int = 1, height: int = 10, width: int = 17) -> np.ndarray:
    return RNG.integers(0, 1 << bits, (height, width, channels))


def shown(stored: np.ndarray, photometric: int, bits: int) -> np.ndarray:
    """What a viewer shows for grey, RGB and CMYK values, 0 to 255."""
    part = stored / ((1 << bits) - 1)
    if photometric == CMYK:
        return 255 * (1 - part[..., :3]) * (1 - part[..., 3:])
    if photometric == WHITE_IS_ZERO:
        part = 1 - part
    return 255 * np.broadcast_to(part, (*part.shape[:2], 3))


def read_or_refused(data: bytes, expected: np.ndarray) -> bool:
    """Return whether a TIFF is read; then its pixels must be right."""
    try:
        found = pixels(data)
    except UnsupportedFormat:
        return False
    assert np.abs(found - expected).max() <= 2
    return True


@pytest.mark.parametrize("photometric", CHANNELS, ids=["white is 0", "black is 0", "RGB", "CMYK"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16, 32])
def test_every_layout_is_read_right_or_refused(photometric, bits):
    channels = CHANNELS[photometric]
    stored = values(bits, channels)
    expected = shown(stored, photometric, bits)
    layouts = [
        {"byte_order": order, "compression": compression, "planar": planar, "fill_order": fill, "predictor": predictor}
        | size
        for order in ORDERS
        for compression in (NONE, DEFLATE, PACKBITS)
        for planar in ((False, True) if channels > 1 else (False,))
        for fill in (1, 2)
        for predictor in ([{}, {"predictor": True}] if compression == DEFLATE and bits in (8, 16) else [{}])
        for size in ({}, {"rows_per_strip": 3}, {"tile": 16})
    ]
    read = [layout for layout in layouts if read_or_refused(tiff(stored, photometric, bits, **layout), expected)]
    usual = [layout for layout in layouts if layout["fill_order"] == 1 and layout["byte_order"] == "<"]
    if bits in (8, 16):
        usual = [layout for layout in usual if bits == 8 or not layout["planar"] or layout["compression"] != NONE]
        assert all(layout in read for layout in usual)
    elif channels == 1 and bits < 32:
        assert all(layout in read for layout in usual)
    else:
        assert not read


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bits", [8, 16])
def test_white_is_zero_is_not_a_negative(bits, order):
    top = (1 << bits) - 1
    data = tiff(np.array([[0, top // 2, top]]), WHITE_IS_ZERO, bits, byte_order=order)
    assert pixels(data)[0, :, 0].tolist() == [255, 128, 0]


def test_12_bits_are_not_dark():
    assert pixels(tiff(np.array([[0, 2048, 4095]]), BLACK_IS_ZERO, 12))[0, :, 0].tolist() == [0, 128, 255]
    assert pixels(tiff(np.array([[0, 2048, 4095]]), WHITE_IS_ZERO, 12))[0, :, 0].tolist() == [255, 127, 0]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_without_a_photometric_interpretation_is_not_a_negative(bits):
    """libtiff assumes that black is 0."""
    stored = values(bits)
    assert read_or_refused(tiff(stored, None, bits), shown(stored, BLACK_IS_ZERO, bits))


# Alpha


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("extra", "stored", "expected"),
    [
        (2, [100, 60, 20, 51], [224, 216, 208]),  # a fifth of the colour on white
        (1, [100, 60, 20, 128], [227, 187, 147]),  # the colour, which has been multiplied, and 127 of white
        (0, [100, 60, 20, 51], [100, 60, 20]),
    ],
    ids=["alpha", "associated alpha", "unknown"],
)
def test_the_alpha_of_rgb(extra, stored, expected, bits, order):
    scale = 1 if bits == 8 else 257
    data = tiff(np.array([[stored]]) * scale, RGB, bits, extra_samples=(extra,), byte_order=order)
    assert np.abs(pixels(data)[0, 0] - expected).max() <= 2


@pytest.mark.parametrize(
    ("extra", "stored", "expected"), [(2, [100, 51], 224), (1, [100, 128], 227), (0, [100, 51], 100)]
)
def test_the_alpha_of_grey(extra, stored, expected):
    data = tiff(np.array([[stored]]), BLACK_IS_ZERO, 8, extra_samples=(extra,))
    assert np.abs(pixels(data)[0, 0] - expected).max() <= 2


# Palettes


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("compression", [NONE, DEFLATE])
@pytest.mark.parametrize("scale", [257, 1], ids=["16 bits", "8 bits"])
def test_the_palette_is_applied(bits, compression, scale):
    """Some programs write the colours with 8 bits instead of 16."""
    colours = RNG.integers(0, 256, (1 << bits, 3))
    stored = values(bits)
    tags = {320: (3, (colours.T * scale).ravel().tolist())}
    found = pixels(tiff(stored, PALETTE, bits, compression=compression, tags=tags))
    assert np.array_equal(found, colours[stored[..., 0]])


# Colour models


def test_lab_is_converted():
    labs = np.array([[(100, 0, 0), (0, 0, 0), (60, 30, 40), (50, -30, 20), (40, 10, -40)]])
    stored = np.stack([labs[..., 0] * 255 / 100, labs[..., 1] % 256, labs[..., 2] % 256], -1).round().astype(int)
    assert np.abs(pixels(tiff(stored, LAB, 8)) - icc.lab_to_srgb(labs)).max() <= 3


def test_ycbcr_is_converted():
    """TIFF revision 6.0, section 21: white, black, and red with the factors of ITU-R BT.601."""
    stored = np.array([[(255, 128, 128), (0, 128, 128), (76, 85, 255)]])
    for compression in (NONE, DEFLATE):
        found = pixels(tiff(stored, YCBCR, 8, compression=compression, tags={530: (3, [1, 1])}))
        assert np.abs(found - [[(255,) * 3, (0,) * 3, (254, 0, 0)]]).max() <= 2


def test_subsampled_ycbcr_is_refused_if_it_would_be_misread():
    """Its values are stored in units of several pixels; Pillow would take them for single pixels."""
    with pytest.raises(UnsupportedFormat, match="subsampled"):
        pixels(tiff(np.full((8, 8, 3), 128), YCBCR, 8))


@pytest.mark.parametrize("photometric", [RGB, YCBCR])
def test_a_jpeg_in_a_tiff_is_decoded(photometric):
    """Its strip is a JPEG file. Of RGB, the colours are stored as they are."""
    colour = (200, 100, 50)
    options = {"keep_rgb": True} if photometric == RGB else {}
    strip = encode(Image.new("RGB", (16, 16), colour), "JPEG", quality=100, subsampling=0, **options)
    shape = np.zeros((16, 16, 3))
    data = tiff(shape, photometric, 8, compression=JPEG, strips=[strip], tags={530: (3, [1, 1])})
    assert np.abs(pixels(data) - colour).max() <= 3


def test_a_grey_jpeg_in_a_tiff_is_decoded():
    strip = encode(Image.new("L", (16, 16), 200), "JPEG", quality=100)
    data = tiff(np.zeros((16, 16)), BLACK_IS_ZERO, 8, compression=JPEG, strips=[strip])
    assert np.abs(pixels(data) - 200).max() <= 1


# What is refused


@pytest.mark.parametrize(
    ("bits", "sample_format", "reason"),
    [
        (8, SIGNED, "signed values"),
        (16, SIGNED, "signed values"),
        (32, SIGNED, "signed values"),
        (16, FLOAT, "floating-point values"),
        (32, FLOAT, "floating-point values"),
        (64, FLOAT, "floating-point values"),
        (32, UNSIGNED, "32-bit values"),
        (32, None, "32-bit values"),
    ],
)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("photometric", [BLACK_IS_ZERO, RGB])
def test_values_of_an_unknown_range_are_refused(photometric, order, bits, sample_format, reason):
    stored = np.full((4, 4, CHANNELS[photometric]), 1)
    with pytest.raises(UnsupportedFormat, match=reason):
        pixels(tiff(stored, photometric, bits, sample_format=sample_format, byte_order=order))


@pytest.mark.parametrize(
    ("photometric", "channels", "bits", "reason"),
    [
        (RGB, 3, 4, "4-bit RGB values"),
        (RGB, 3, 12, "12-bit RGB values"),
        (CMYK, 4, 12, "12-bit CMYK values"),
        (PALETTE, 1, 16, "16-bit palette values"),
        (9, 3, 8, "8-bit ICC Lab values"),
        (LAB, 3, 16, "16-bit Lab values"),
        (32844, 1, 16, "16-bit LogL values"),
    ],
)
def test_values_that_pillow_does_not_read_are_refused_with_their_name(photometric, channels, bits, reason):
    with pytest.raises(UnsupportedFormat, match=f"This is a TIFF with {reason}. Send"):
        pixels(tiff(values(bits, channels), photometric, bits))


@pytest.mark.parametrize(
    ("compression", "name"), [(34712, "JPEG 2000"), (34887, "LERC"), (52546, "JPEG XL"), (34661, "JBIG")]
)
def test_a_compression_that_is_not_supported_is_named(compression, name):
    with pytest.raises(UnsupportedFormat, match=f"This is a TIFF with the compression {name}. Send"):
        pixels(tiff(values(8), BLACK_IS_ZERO, 8, tags={259: (3, [compression])}))


@pytest.mark.parametrize(
    "tags",
    [
        {50706: (1, bytes([1, 4, 0, 0]))},
        {254: (4, [1]), 330: (4, [8])},
        {262: (3, [32803])},
        {262: (3, [34892])},
    ],
    ids=["DNG", "preview with raw pages", "CFA", "linear raw"],
)
def test_a_camera_raw_image_is_refused_with_its_name(tags):
    """Pillow would read its preview, which may be tiny, or the sensor's values."""
    with pytest.raises(UnsupportedFormat, match="This is a camera raw image"):
        pixels(tiff(values(8), BLACK_IS_ZERO, 8, tags=tags))


@pytest.mark.parametrize(
    "tags", [{277: (3, [4])}, {258: (3, [0])}, {258: (3, [99])}, {256: (4, [0])}, {262: (3, [77])}, {259: (3, [4711])}]
)
def test_tags_that_contradict_each_other_or_mean_nothing_are_damage(tags):
    with pytest.raises(BrokenImage):
        pixels(tiff(values(8, 3), RGB, 8, tags=tags))


def test_padded_rows_of_12_bits_are_refused():
    """The rows of a file of an odd width are padded to whole pairs of values: 3 pixels take 6 bytes in place of 5."""
    entries = [(256, 3), (257, 2), (258, 12), (259, 1), (262, 1), (273, 8 + 2 + 8 * 12 + 4), (278, 2), (279, 12)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    data = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + bytes(4) + bytes(12)
    with pytest.raises(UnsupportedFormat, match="rows are padded"):
        decode(data, Limits(10**6, 10**6), 16)


def test_a_directory_beyond_every_file_is_damage():
    """A BigTIFF whose position of the first directory does not fit into a signed number of 64 bits."""
    data = b"II+\0\x08\0\0\0" + (2**64 - 1).to_bytes(8, "little") + bytes(8)
    with pytest.raises(BrokenImage):
        decode(data, Limits(10**6, 10**6), 16)
