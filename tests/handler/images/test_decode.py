import contextlib
import io
import struct

import numpy as np
import pytest
from PIL import Image

from tests.support.images import FORMATS, big_endian_tiff, corners, encode, gradient, png, png_chunk
from vinegrape_handler.errors import BrokenImage, NoImage, TooLarge
from vinegrape_handler.images.decode import Limits, decode
from vinegrape_handler.settings import WorkerSettings

LIMITS = Limits(max_bytes=1_000_000, max_pixels=1_000_000)

LOSSLESS = {
    "png": ("PNG", {}),
    "bmp": ("BMP", {}),
    "webp": ("WEBP", {"lossless": True}),
    "tiff": ("TIFF", {}),
    "tiff lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "tiff packbits": ("TIFF", {"compression": "packbits"}),
    "bigtiff": ("TIFF", {"big_tiff": True}),
}

# From the EXIF specification: on which side of the upright image the first stored row and column are
ORIENTATIONS = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def pixels(data, side=64) -> np.ndarray:
    image = decode(data, LIMITS, side)
    assert image.mode == "RGB"
    return np.asarray(image)


def difference(data, expected) -> int:
    return int(np.abs(pixels(data).astype(int) - np.asarray(expected).astype(int)).max())


# Formats


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_keep_every_pixel(name):
    format_, options = LOSSLESS[name]
    assert np.array_equal(pixels(encode(gradient(), format_, **options)), np.asarray(gradient()))


def test_a_big_endian_tiff_keeps_every_pixel():
    assert np.array_equal(pixels(big_endian_tiff(corners())), corners())


@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
def test_a_jpeg_is_close(options):
    assert difference(encode(gradient(), "JPEG", quality=98, subsampling=0, **options), gradient()) <= 8


def test_a_lossy_webp_is_close():
    flat = Image.new("RGB", (32, 32), (200, 100, 50))
    assert difference(encode(flat, "WEBP", quality=95), flat) <= 8


def test_a_tiff_of_several_strips_keeps_every_pixel():
    tall = gradient(64, 400)
    assert np.array_equal(pixels(encode(tall, "TIFF", compression="tiff_lzw", strip_size=1024)), np.asarray(tall))


# Modes


def test_grey_has_three_equal_channels():
    image = Image.fromarray(np.array([[0, 100, 255]], np.uint8))
    assert pixels(encode(image, "PNG")).tolist() == [[[0] * 3, [100] * 3, [255] * 3]]


def test_one_bit_becomes_black_and_white():
    image = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    for format_ in ("PNG", "BMP", "TIFF"):
        assert pixels(encode(image, format_)).tolist() == [[[0] * 3, [255] * 3]]


def palette(transparent=None) -> bytes:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    return encode(image, "PNG", **({} if transparent is None else {"transparency": transparent}))


def test_a_palette_is_applied():
    assert pixels(palette()).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]


def test_a_transparent_colour_of_a_palette_becomes_white():
    assert pixels(palette(1)).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


def test_an_alpha_per_palette_colour_is_blended_with_white():
    assert pixels(palette(bytes([255, 0, 255]))).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


def test_a_palette_bmp_is_decoded():
    assert pixels(encode(gradient().quantize(4), "BMP")).shape == (23, 37, 3)


@pytest.mark.parametrize(("format_", "type_"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2")])
def test_16_bit_grey_is_scaled_instead_of_clipped(format_, type_):
    image = Image.fromarray(np.array([[0, 32896, 65535]]).astype(type_))
    data = encode(image, format_)
    if type_ == ">u2":
        assert data.startswith(b"MM")
    assert pixels(data).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]


def test_a_transparent_value_of_a_16_bit_grey_png_becomes_white():
    rows = b"\0" + struct.pack(">HH", 1000, 65535 // 2)
    data = png(2, 1, 16, 0, rows, png_chunk(b"tRNS", struct.pack(">H", 1000)))
    assert pixels(data).tolist() == [[[255] * 3, [127] * 3]]


def test_a_16_bit_rgb_png_is_scaled():
    rows = b"\0" + struct.pack(">6H", 0, 32896, 65535, 65535, 0, 32896)
    assert pixels(png(2, 1, 16, 2, rows)).tolist() == [[[0, 128, 255], [255, 0, 128]]]


def test_a_transparent_colour_of_a_16_bit_rgb_png_becomes_white():
    rows = b"\0" + struct.pack(">6H", 0, 32896, 65535, 65535, 0, 32896)
    data = png(2, 1, 16, 2, rows, png_chunk(b"tRNS", struct.pack(">3H", 65535, 0, 32896)))
    assert pixels(data).tolist() == [[[0, 128, 255], [255, 255, 255]]]


def test_a_16_bit_rgba_png_is_blended_with_white():
    rows = b"\0" + struct.pack(">8H", 0, 0, 0, 65535, 0, 0, 0, 0)
    assert pixels(png(2, 1, 16, 6, rows)).tolist() == [[[0] * 3, [255] * 3]]


def test_a_cmyk_jpeg_is_not_inverted():
    """Full magenta and full yellow are red."""
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert difference(encode(image, "JPEG", quality=95), Image.new("RGB", (16, 16), (255, 0, 0))) <= 3


def test_a_cmyk_tiff_is_converted():
    image = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    assert pixels(encode(image, "TIFF")).tolist() == [[[255, 0, 0]] * 2] * 2


@pytest.mark.parametrize(("alpha", "expected"), [(255, 0), (128, 127), (1, 254)])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("format_", ["PNG", "TIFF", "WEBP"])
def test_transparent_black_is_blended_with_white(format_, mode, alpha, expected):
    image = Image.new("RGBA", (4, 4), (0, 0, 0, alpha)).convert(mode)
    options = {"lossless": True, "exact": True} if format_ == "WEBP" else {}
    assert pixels(encode(image, format_, **options)).tolist() == [[[expected] * 3] * 4] * 4


# Orientation


def stored(upright, orientation) -> np.ndarray:
    """The pixels as a camera in this orientation stores them."""
    row, column = ORIENTATIONS[orientation]
    array = upright if orientation < 5 else upright.transpose(1, 0, 2)
    array = array[::-1] if row in ("bottom", "right") else array
    return array[:, ::-1] if column in ("bottom", "right") else array


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_exif_orientation_is_applied(format_, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored(corners(), orientation)))
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format_, {})
    assert difference(encode(image, format_, exif=exif, **options), corners()) <= 20


def test_the_exif_orientation_of_a_scaled_jpeg_is_applied():
    exif = Image.Exif()
    exif[0x112] = 6
    image = Image.fromarray(np.ascontiguousarray(stored(corners(800, 480), 6)))
    decoded = pixels(encode(image, "JPEG", exif=exif), side=8)
    assert decoded.shape == (60, 100, 3)
    assert np.abs(decoded[5, 5].astype(int) - [255, 0, 0]).max() <= 10
    assert np.abs(decoded[5, -5].astype(int) - [0, 255, 0]).max() <= 10


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0" + bytes(range(64))])
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_is_ignored(format_, exif):
    assert pixels(encode(gradient(), format_, exif=exif)).shape == (23, 37, 3)


def test_an_invalid_exif_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x112] = 99
    assert pixels(encode(gradient(), "PNG", exif=exif)).shape == (23, 37, 3)


# Several frames


@pytest.mark.parametrize(
    ("format_", "options"), [("WEBP", {"lossless": True, "duration": 100}), ("PNG", {"duration": 100}), ("TIFF", {})]
)
def test_only_the_first_frame_is_decoded(format_, options):
    red, blue = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    data = encode(red, format_, more=[blue], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    assert pixels(data).tolist() == [[[255, 0, 0]] * 4] * 4


def test_only_the_first_jpeg_of_a_stereo_image_is_decoded():
    red, blue = Image.new("RGB", (16, 16), (255, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 255))
    data = encode(red, "MPO", more=[blue])
    assert difference(data, red) <= 3


# Other formats


def test_zero_bytes_are_rejected():
    with pytest.raises(NoImage):
        pixels(b"")


# Damage


@pytest.mark.parametrize("format_", FORMATS)
def test_half_a_file_is_broken(format_):
    data = encode(gradient(200, 200), format_)
    with pytest.raises(BrokenImage):
        pixels(data[: len(data) // 2])


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("format_", FORMATS)
def test_a_signature_alone_is_broken(format_):
    with pytest.raises(BrokenImage):
        pixels(encode(gradient(), format_)[:12])


@pytest.mark.parametrize("format_", FORMATS)
def test_a_damaged_header_is_broken(format_):
    data = encode(gradient(), format_)
    with pytest.raises(BrokenImage):
        pixels(data[:12] + b"\xff" * 12 + data[24:])


def test_a_wrong_checksum_is_broken():
    data = bytearray(encode(gradient(), "PNG"))
    data[data.index(b"IDAT") + 20] ^= 0xFF
    with pytest.raises(BrokenImage):
        pixels(bytes(data))


def test_a_tiff_that_is_cut_in_its_second_page_is_broken_or_gives_the_first():
    red, blue = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    data = encode(red, "TIFF", more=[blue])
    for length in range(len(data) // 2, len(data)):
        with contextlib.suppress(BrokenImage):
            assert pixels(data[:length]).tolist() == [[[255, 0, 0]] * 4] * 4


# Limits


def test_limits_are_taken_from_the_settings():
    assert Limits.of(WorkerSettings(max_image_bytes=7, max_image_pixels=8)) == Limits(7, 8)


def test_one_byte_more_than_the_limit_is_rejected():
    data = encode(gradient(), "PNG")
    decode(data, Limits(len(data), 10_000), 64)
    with pytest.raises(TooLarge, match=f"has {len(data)} bytes; at most {len(data) - 1}"):
        decode(data, Limits(len(data) - 1, 10_000), 64)


def test_one_pixel_more_than_the_limit_is_rejected():
    data = encode(gradient(10, 10), "PNG")
    decode(data, Limits(10_000, 100), 64)
    with pytest.raises(TooLarge, match="has 10 x 10 pixels; at most 99"):
        decode(data, Limits(10_000, 99), 64)


@pytest.mark.parametrize("side", [8_000, 100_000])
def test_a_header_with_too_many_pixels_is_rejected(side):
    """8,000 x 8,000 exceeds our limit, and 100,000 x 100,000 exceeds Pillow's limit. The file has no pixels."""
    with pytest.raises(TooLarge, match="pixels"):
        pixels(png(side, side, 8, 2, b""))


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "BMP", "TIFF"])
def test_the_number_of_pixels_is_checked_before_decoding(format_):
    """The pixels of these files are damaged, so decoding them would raise BrokenImage."""
    data = encode(gradient(200, 200), format_)
    data = data[: len(data) * 3 // 4]
    with pytest.raises(BrokenImage):
        decode(data, Limits(1_000_000, 40_000), 64)
    with pytest.raises(TooLarge):
        decode(data, Limits(1_000_000, 39_999), 64)


def test_a_webp_header_with_too_many_pixels_is_rejected():
    """The header is changed to 16384 x 16384. It stores width - 1 and height - 1 in 14 bits each."""
    data = bytearray(encode(Image.new("RGB", (4, 4)), "WEBP", lossless=True))
    at = data.index(b"VP8L") + 9
    data[at : at + 4] = (0x0FFFFFFF).to_bytes(4, "little")
    with pytest.raises(TooLarge):
        pixels(bytes(data))


def test_a_small_file_with_many_pixels_is_rejected():
    data = encode(Image.new("1", (4_000, 4_000)), "PNG")
    assert len(data) < 5_000
    with pytest.raises(TooLarge):
        pixels(data)


def test_rows_beyond_the_height_in_the_header_are_ignored():
    assert pixels(png(1, 1, 8, 0, b"\0\x07" + bytes(1_000_000))).tolist() == [[[7, 7, 7]]]


# Scaling by the JPEG decoder


@pytest.mark.parametrize(
    ("side", "size"),
    [
        (64, (500, 375)),
        (187, (500, 375)),
        (188, (1000, 750)),
        (256, (1000, 750)),
        (375, (1000, 750)),
        (376, (2000, 1500)),
    ],
)
def test_a_large_jpeg_is_scaled_by_its_decoder_to_at_least_twice_the_side(side, size):
    data = encode(Image.new("RGB", (4000, 3000), (10, 200, 30)), "JPEG")
    image = decode(data, Limits(1_000_000, 12_000_000), side)
    assert image.size == size
    assert min(image.size) >= 2 * side
    assert np.abs(np.asarray(image)[::50, ::50].astype(int) - [10, 200, 30]).max() <= 3


def test_a_small_jpeg_keeps_its_size():
    assert pixels(encode(gradient(100, 90), "JPEG"), side=64).shape == (90, 100, 3)


@pytest.mark.parametrize(
    "options", [{}, {"lossless": True}, {"exif": Image.Exif().tobytes()}], ids=["lossy", "lossless", "extended"]
)
def test_the_size_of_a_webp_is_checked_before_pillow_allocates_it(options):
    data = encode(gradient(300, 200), "WEBP", **options)
    assert decode(data, Limits(10**6, 80_000), 16).size == (300, 200)
    with pytest.raises(TooLarge, match="240000 bytes of pixels when it is decompressed; at most 239997"):  # RGBA
        decode(data[:60], Limits(10**6, 79_999), 16)
    with pytest.raises(TooLarge, match="has 300 x 200 pixels; at most 59999"):
        decode(data[:60], Limits(10**6, 59_999), 16)
