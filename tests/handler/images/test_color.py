"""Colours become sRGB; each result is compared with the formula of the colour space."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.support import icc
from tests.support.images import encode, png_chunk
from vinegrape_handler.images import color
from vinegrape_handler.images.decode import Limits, decode

LIMITS = Limits(max_bytes=10_000_000, max_pixels=10_000_000)
ROUNDING = 2  # levels of 255

# Moderate colours, greys, and the corners of the cube
COLOURS = np.array(
    [
        [(100, 150, 60), (60, 90, 40), (200, 180, 140), (120, 60, 50), (30, 60, 120), (10, 20, 5)],
        [(0, 0, 0), (255, 255, 255), (128, 128, 128), (255, 0, 0), (0, 255, 0), (0, 0, 255)],
    ],
    np.uint8,
)


def gamma(exponent):
    return lambda values: values**exponent


def pixels(data, side=64) -> np.ndarray:
    return np.asarray(decode(data, LIMITS, side)).astype(int)


def difference(data, expected) -> float:
    return float(np.abs(pixels(data) - expected).max())


def png_with(*chunks: bytes, image=COLOURS) -> bytes:
    data = encode(Image.fromarray(image), "PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def encode_as(format_: str, profile: bytes, image: np.ndarray = COLOURS) -> bytes:
    """Encode without loss, except for JPEG: there each colour fills blocks, at the best quality."""
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format_, {})
    return encode(Image.fromarray(image), format_, icc_profile=profile, **options)


SPACES = {
    "Display P3": (icc.DISPLAY_P3, icc.parametric_srgb(), icc.srgb_to_linear, 4),
    "Display P3 with a table": (icc.DISPLAY_P3, icc.sampled_curve(icc.srgb_to_linear), icc.srgb_to_linear, 2),
    "Adobe RGB": (icc.ADOBE_RGB, icc.gamma_curve(563 / 256), gamma(563 / 256), 2),
    "Adobe RGB, version 4": (icc.ADOBE_RGB, icc.parametric_gamma(563 / 256), gamma(563 / 256), 4),
    "ProPhoto": (icc.PROPHOTO, icc.gamma_curve(1.80078125), gamma(1.80078125), 2),
    "ProPhoto, version 4": (icc.PROPHOTO, icc.parametric_gamma(1.8), gamma(1.8), 4),
    "linear sRGB": (icc.SRGB, icc.gamma_curve(1), gamma(1), 2),
}


@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("name", SPACES)
def test_an_rgb_profile_is_applied(name, format_):
    colorants, curve, decode_curve, version = SPACES[name]
    expected = icc.to_srgb(COLOURS, colorants, decode_curve)
    assert np.abs(expected - COLOURS).max() > 5 * ROUNDING  # the profile matters
    data = encode_as(format_, icc.matrix_profile(colorants, curve, version))
    assert difference(data, expected) <= ROUNDING


@pytest.mark.parametrize("name", SPACES)
def test_the_profile_of_a_jpeg_is_applied(name):
    colorants, curve, decode_curve, version = SPACES[name]
    blocks = COLOURS[:1].repeat(16, 0).repeat(16, 1)
    data = encode_as("JPEG", icc.matrix_profile(colorants, curve, version), blocks)
    assert difference(data, icc.to_srgb(blocks, colorants, decode_curve)) <= 6  # JPEG itself changes 1 level


def test_a_profile_in_several_segments_of_a_jpeg_is_applied():
    unused = {b"unus": b"data\0\0\0\0" + bytes(150_000)}
    table = {c + b"TRC": icc.gamma_curve(1.8) for c in (b"r", b"g", b"b")}
    colorants = {c + b"XYZ": icc.xyz(v) for c, v in zip((b"r", b"g", b"b"), icc.PROPHOTO, strict=True)}
    profile = icc.profile(b"RGB ", b"XYZ ", 2, unused | table | colorants)
    blocks = COLOURS[:1].repeat(16, 0).repeat(16, 1)
    data = encode_as("JPEG", profile, blocks)
    assert data.count(b"ICC_PROFILE\0") == 3
    assert difference(data, icc.to_srgb(blocks, icc.PROPHOTO, gamma(1.80078125))) <= 6


def test_the_profile_of_a_jpeg_that_its_decoder_scales_is_applied():
    flat = np.full((900, 1200, 3), (100, 150, 60), np.uint8)
    data = encode_as("JPEG", icc.matrix_profile(icc.DISPLAY_P3, icc.parametric_srgb(), 4), flat)
    assert decode(data, LIMITS, 64).size == (150, 113)
    assert difference(data, icc.to_srgb(flat[0, 0], icc.DISPLAY_P3, icc.srgb_to_linear)) <= 4


def test_a_large_image_with_a_profile_is_scaled_before_its_colours_are_converted():
    """As the JPEG decoder does: to at least twice the side. Here 1000 pixels to a third."""
    flat = np.full((400, 1000, 3), (100, 150, 60), np.uint8)
    data = encode_as("PNG", icc.matrix_profile(icc.DISPLAY_P3, icc.parametric_srgb(), 4), flat)
    assert decode(data, LIMITS, 160).size == (334, 134)
    assert decode(data, LIMITS, 500).size == (1000, 400)
    assert difference(data, icc.to_srgb(flat[0, 0], icc.DISPLAY_P3, icc.srgb_to_linear)) <= ROUNDING
    assert decode(encode(Image.fromarray(flat), "PNG"), LIMITS, 160).size == (1000, 400)


# Other modes


@pytest.mark.parametrize("version", [2, 4])
def test_a_grey_profile_is_applied(version):
    greys = np.array([[0, 50, 128, 200, 255]], np.uint8)
    curve = icc.gamma_curve(1) if version == 2 else icc.parametric_gamma(1)
    data = encode(Image.fromarray(greys), "PNG", icc_profile=icc.grey_profile(curve, version))
    expected = icc.xyz_to_srgb((greys / 255)[..., None] * icc.D50)
    assert expected[0, 2, 0] > 180
    assert difference(data, expected) <= ROUNDING


def test_the_profile_of_a_palette_is_applied():
    image = Image.fromarray(COLOURS).quantize(12)
    stored = np.asarray(image.convert("RGB"))
    data = encode(image, "PNG", icc_profile=icc.matrix_profile(icc.ADOBE_RGB, icc.gamma_curve(2.2)))
    assert difference(data, icc.to_srgb(stored, icc.ADOBE_RGB, gamma(563 / 256))) <= ROUNDING + 1


def test_the_profile_of_16_bits_is_applied():
    values = (COLOURS.astype(int) * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 6, 2, 16, 2, 0, 0, 0)
    profile = zlib.compress(icc.matrix_profile(icc.ADOBE_RGB, icc.gamma_curve(563 / 256)))
    chunks = [(b"IHDR", header), (b"iCCP", b"a\0\0" + profile), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks)
    assert difference(data, icc.to_srgb(COLOURS, icc.ADOBE_RGB, gamma(563 / 256))) <= ROUNDING


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_colours_are_converted_before_they_are_blended_with_white(mode):
    """Linear 128 is 188 in sRGB; half of it on white is 222. White stays white where nothing is opaque."""
    space = icc.matrix_profile(icc.SRGB, icc.gamma_curve(1)) if mode == "RGBA" else icc.grey_profile(icc.gamma_curve(1))
    image = Image.new("RGBA", (3, 1), (128, 128, 128, 255))
    image.putpixel((1, 0), (128, 128, 128, 128))
    image.putpixel((2, 0), (128, 128, 128, 0))
    found = pixels(encode(image.convert(mode), "PNG", icc_profile=space))[0, :, 0]
    assert np.abs(found - [188, 221, 255]).max() <= 1


@pytest.mark.parametrize("format_", ["JPEG", "TIFF"])
def test_a_cmyk_profile_is_applied(format_):
    """The paper, and the inks of a press: its red is not the RGB red of (0, 255, 255, 0)."""
    labs = {
        (0, 0, 0, 0): (100, 0, 0),
        (0, 1, 1, 0): (50, 60, 40),
        (0, 0, 1, 0): (85, -5, 80),
        (1, 0, 1, 0): (50, -50, 25),
    }
    inks = np.array(list(labs)).reshape(1, -1, 4).repeat(16, 0).repeat(16, 1) * 255
    image = Image.fromarray(inks.astype(np.uint8), "CMYK")
    options = {"quality": 100} if format_ == "JPEG" else {}
    data = encode(image, format_, icc_profile=icc.cmyk_profile(labs), **options)
    expected = icc.lab_to_srgb(np.array(list(labs.values()), float)).reshape(1, -1, 3).repeat(16, 0).repeat(16, 1)
    assert difference(data, expected) <= (8 if format_ == "JPEG" else ROUNDING)


# PNG's own chunks


def gama(value: float) -> bytes:
    return png_chunk(b"gAMA", struct.pack(">I", round(100_000 * value)))


def chrm(*numbers: float) -> bytes:
    return png_chunk(b"cHRM", struct.pack(">8I", *(round(100_000 * number) for number in numbers)))


def cicp(primaries: int, transfer: int, full_range: int = 1, matrix: int = 0) -> bytes:
    return png_chunk(b"cICP", bytes([primaries, transfer, matrix, full_range]))


def iccp(profile: bytes) -> bytes:
    return png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile))


SRGB_CHUNK = png_chunk(b"sRGB", b"\0")
D65 = (0.3127, 0.329)
CHRM_SRGB = (*D65, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
CHRM_P3 = (*D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
CHRM_ADOBE = (*D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
CHRM_PROPHOTO = (0.3457, 0.3585, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)  # its white is D50


@pytest.mark.parametrize(
    ("chunks", "colorants", "curve"),
    [
        ([gama(1)], icc.SRGB, gamma(1)),
        ([gama(1 / 1.8)], icc.SRGB, gamma(1.8)),
        ([gama(1 / 1.8), chrm(*CHRM_SRGB)], icc.SRGB, gamma(1.8)),
        ([gama(256 / 563), chrm(*CHRM_ADOBE)], icc.ADOBE_RGB, gamma(563 / 256)),
        ([gama(1 / 1.8), chrm(*CHRM_PROPHOTO)], icc.PROPHOTO, gamma(1.8)),
        ([chrm(*CHRM_P3)], icc.DISPLAY_P3, icc.srgb_to_linear),
    ],
    ids=["linear", "1.8", "1.8 and sRGB", "Adobe RGB", "ProPhoto", "P3 without gamma"],
)
def test_gamma_and_chromaticities_of_a_png_are_applied(chunks, colorants, curve):
    assert difference(png_with(*chunks), icc.to_srgb(COLOURS, colorants, curve)) <= ROUNDING


@pytest.mark.parametrize(
    "chunks",
    [[SRGB_CHUNK], [gama(0.45455)], [gama(0.45455), chrm(*CHRM_SRGB)], [chrm(*CHRM_SRGB)], [cicp(1, 13)]],
    ids=["sRGB", "gAMA", "gAMA and cHRM", "cHRM", "cICP"],
)
def test_chunks_that_describe_srgb_change_nothing(chunks):
    assert np.array_equal(pixels(png_with(*chunks)), COLOURS)


def bt709(values):
    return np.where(values < 0.081, values / 4.5, ((values + 0.099) / 1.099) ** (1 / 0.45))


@pytest.mark.parametrize(
    ("chunk", "colorants", "curve"),
    [
        (cicp(12, 13), icc.DISPLAY_P3, icc.srgb_to_linear),
        (cicp(9, 13), icc.BT2020, icc.srgb_to_linear),
        (cicp(1, 8), icc.SRGB, gamma(1)),
        (cicp(1, 4), icc.SRGB, gamma(2.2)),
        (cicp(1, 5), icc.SRGB, gamma(2.8)),
        (cicp(1, 1), icc.SRGB, bt709),
        (cicp(9, 14), icc.BT2020, bt709),
    ],
    ids=["P3", "BT.2020 with sRGB's curve", "linear", "2.2", "2.8", "BT.709", "BT.2020"],
)
def test_the_code_points_of_a_png_are_applied(chunk, colorants, curve):
    assert difference(png_with(chunk), icc.to_srgb(COLOURS, colorants, curve)) <= ROUNDING


def test_black_and_white_of_the_narrow_range_are_16_and_235():
    greys = np.array([[[value] * 3 for value in (0, 16, 126, 235, 255)]], np.uint8)
    found = pixels(png_with(cicp(1, 13, full_range=0), image=greys))[0, :, 0]
    assert np.abs(found - [0, 0, 255 * 110 / 219, 255, 255]).max() <= 1


@pytest.mark.parametrize(
    ("transfer", "signals"),
    [(16, {0.0: 0, 0.5807: 1, 0.4402: 0.25, 0.9: 1}), (18, {0.0: 0, 0.75: 1, 0.5: 0.2535, 1.0: 1})],
    ids=["PQ", "HLG"],
)
def test_the_reference_white_of_hdr_is_white_and_what_is_brighter_is_clipped(transfer, signals):
    """203 cd/m2 is 58 % of PQ's signal and 75 % of HLG's (ITU-R BT.2408, table 1). The other numbers are of BT.2100:
    50.75 cd/m2 has PQ's signal 0.4402; HLG's 0.5 is the light 1/12 against 0.2650, to the power of 1.2."""
    greys = np.array([[[round(255 * signal)] * 3 for signal in signals]], np.uint8)
    light = np.array(list(signals.values()))
    expected = icc.xyz_to_srgb(light[:, None] * icc.D50)
    assert np.abs(pixels(png_with(cicp(9, transfer), image=greys))[0] - expected).max() <= 3


P3_PROFILE = icc.matrix_profile(icc.DISPLAY_P3, icc.parametric_srgb(), 4)
ADOBE_PROFILE = icc.matrix_profile(icc.ADOBE_RGB, icc.gamma_curve(563 / 256))


def test_the_order_in_which_the_chunks_of_a_png_count():
    """PNG specification, third edition, 4.3: cICP, iCCP, sRGB, gAMA and cHRM."""
    linear = icc.to_srgb(COLOURS, icc.SRGB, gamma(1))
    p3 = icc.to_srgb(COLOURS, icc.DISPLAY_P3, icc.srgb_to_linear)
    assert difference(png_with(cicp(1, 8), iccp(P3_PROFILE), gama(1 / 1.8)), linear) <= ROUNDING
    assert difference(png_with(gama(1 / 1.8), iccp(P3_PROFILE), cicp(1, 8)), linear) <= ROUNDING
    assert difference(png_with(iccp(P3_PROFILE), SRGB_CHUNK, gama(1 / 1.8)), p3) <= ROUNDING
    assert difference(png_with(SRGB_CHUNK, gama(1 / 1.8), chrm(*CHRM_P3)), COLOURS) == 0
    # Code points that we do not know, or that no PNG may have, are passed over
    assert difference(png_with(cicp(99, 8), iccp(P3_PROFILE)), p3) <= ROUNDING
    assert difference(png_with(cicp(1, 8, matrix=1), iccp(P3_PROFILE)), p3) <= ROUNDING
    assert difference(png_with(cicp(1, 2), iccp(P3_PROFILE)), p3) <= ROUNDING


# Exif


def exif_with(color_space: int, interoperability: str | None) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = color_space
    if interoperability:
        exif.get_ifd(0x8769)[0xA005] = {1: interoperability, 2: b"0100"}
    return exif.tobytes()


@pytest.mark.parametrize("exif", [exif_with(0xFFFF, "R03"), exif_with(2, None)], ids=["R03", "ColorSpace 2"])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_exif_marks_adobe_rgb(format_, exif):
    blocks = COLOURS[:1].repeat(16, 0).repeat(16, 1)
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format_, {})
    data = encode(Image.fromarray(blocks), format_, exif=exif, **options)
    assert difference(data, icc.to_srgb(blocks, icc.ADOBE_RGB, gamma(563 / 256))) <= (
        6 if format_ == "JPEG" else ROUNDING
    )


@pytest.mark.parametrize("exif", [exif_with(1, "R98"), exif_with(0xFFFF, None)], ids=["sRGB", "uncalibrated"])
def test_exif_without_the_mark_of_adobe_rgb_changes_nothing(exif):
    assert np.array_equal(pixels(encode(Image.fromarray(COLOURS), "PNG", exif=exif)), COLOURS)


def test_a_profile_counts_more_than_exif():
    data = encode(Image.fromarray(COLOURS), "PNG", exif=exif_with(2, "R03"), icc_profile=P3_PROFILE)
    assert difference(data, icc.to_srgb(COLOURS, icc.DISPLAY_P3, icc.srgb_to_linear)) <= ROUNDING


# Profiles that change nothing


SRGB_PROFILES = {
    "littleCMS's": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    "version 4": icc.matrix_profile(icc.SRGB, icc.parametric_srgb(), 4),
    "version 2": icc.matrix_profile(icc.SRGB, icc.sampled_curve(icc.srgb_to_linear)),
}
IGNORED_PROFILES = {
    "for CMYK": icc.cmyk_profile({(0, 0, 0, 0): (100, 0, 0)}),
    "for grey": icc.grey_profile(icc.gamma_curve(1)),
    "noise": bytes(range(256)) * 4,
    "empty": b"\0",
    "cut in its header": P3_PROFILE[:100],
    "cut in its table": P3_PROFILE[:150],
    "cut in its curves": P3_PROFILE[: len(P3_PROFILE) - 60],
    "without curves": icc.profile(b"RGB ", b"XYZ ", 2, {b"rXYZ": icc.xyz(icc.D50)}),
    "of 10,000 tags": P3_PROFILE[:128] + struct.pack(">I", 10_000) + P3_PROFILE[132:],
    "too large": P3_PROFILE + bytes(color.MAX_PROFILE_BYTES),
}


@pytest.mark.parametrize(
    "profile", (SRGB_PROFILES | IGNORED_PROFILES).values(), ids=[*SRGB_PROFILES, *IGNORED_PROFILES]
)
@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
def test_a_profile_of_srgb_or_one_that_cannot_be_used_changes_nothing(profile, format_):
    assert np.array_equal(pixels(encode_as(format_, profile)), COLOURS)


@pytest.mark.parametrize(
    ("mode", "profile", "times"),
    [
        ("RGB", P3_PROFILE, 100),
        ("RGB", SRGB_PROFILES["version 2"], 100),
        ("L", icc.grey_profile(icc.gamma_curve(1.8)), 100),
        ("CMYK", icc.cmyk_profile({(0, 0, 0, 0): (100, 0, 0)}), 20),
    ],
    ids=["matrix", "table", "grey", "CMYK"],
)
def test_a_damaged_profile_never_refuses_an_image(mode, profile, times):
    rng = np.random.default_rng(0)
    image = Image.new(mode, (4, 4))
    for _ in range(times):
        damaged = bytearray(profile)
        for at in rng.integers(0, min(len(profile), 600), rng.integers(1, 9)):
            damaged[at] = rng.choice([0, 1, 127, 128, 255])
        assert decode(encode(image, "TIFF", icc_profile=bytes(damaged)), LIMITS, 64).mode == "RGB"


def test_a_profile_that_announces_a_larger_table_than_it_has_is_ignored():
    """The table has 2 nodes per ink, and would have 255."""
    profile = icc.cmyk_profile({(0, 0, 0, 0): (100, 0, 0), (0, 1, 1, 0): (50, 60, 40)})
    at = profile.index(b"mft2") + 10
    announced = profile[:at] + b"\xff" + profile[at + 1 :]
    image = Image.new("CMYK", (4, 4), (0, 255, 255, 0))
    red = icc.lab_to_srgb(np.array([50.0, 60, 40]))
    assert np.abs(pixels(encode(image, "TIFF", icc_profile=profile)) - red).max() <= ROUNDING
    assert pixels(encode(image, "TIFF", icc_profile=announced))[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_an_rgb_profile_is_ignored_for_other_images(mode):
    image = Image.fromarray(COLOURS).convert(mode)
    with_profile = encode(image, "TIFF", icc_profile=P3_PROFILE)
    assert np.array_equal(pixels(with_profile), pixels(encode(image, "TIFF")))


def test_an_image_in_srgb_is_not_converted():
    image = Image.fromarray(COLOURS)
    for info in ({}, {"icc_profile": SRGB_PROFILES["version 4"]}, {"srgb": 0}, {"gamma": 0.45455}):
        assert color.to_srgb(image, info, 64) is image


def test_the_last_profiles_are_kept():
    for step in range(40):
        profile = icc.matrix_profile(icc.ADOBE_RGB, icc.gamma_curve(1 + step / 40))
        assert color.to_srgb(Image.fromarray(COLOURS), {"icc_profile": profile}, 64).mode == "RGB"
    assert len(color._transforms) <= 16
