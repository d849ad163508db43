import random
import zlib

import pytest

from tests.support.images import png, png_chunk
from vinegrape_loadtests.fuzz.mutations import KINDS, Change, apply, destroyed_headers, random_changes
from vinegrape_loadtests.fuzz.seeds import seeds
from vinegrape_loadtests.fuzz.structure import mend_checksums, read_structure

PNG = png(1, 1, 8, 0, b"\0\7")


def change(kind: str, place: float = 0, other: float = 0, value: int = 0) -> Change:
    return Change(kind, place, other, value)


def test_equal_seeds_give_equal_images():
    first, second = (apply(PNG, random_changes(random.Random(3)), PNG) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([change("fill", place=0.5, other=0.9, value=1)], b"abcd\xff\xffgh"),
        ([change("flip a bit", place=0.25, value=0)], b"abbdefgh"),
        ([change("remove", place=0.5, value=1)], b"abcdgh"),
        ([change("repeat", value=1)], b"ababcdefgh"),
        ([change("cut", place=0.5)], b"abcd"),
        ([change("splice", place=0.5, other=0.5)], b"abcd34"),
        ([change("cut", place=0.5), change("repeat", value=0)], b"aabcd"),
        ([change("set a number"), change("repeat a part"), change("mend checksums")], b"abcdefgh"),
    ],
)
def test_changes_of_bytes(changes, expected):
    assert apply(b"abcdefgh", changes, b"1234") == expected


def test_parts_are_repeated_removed_and_replaced():
    header, pixels, end = (PNG[part] for part in read_structure(PNG).parts)
    signature = PNG[:8]
    assert apply(PNG, [change("repeat a part", value=0)]) == signature + header * 2 + pixels + end
    assert apply(PNG, [change("remove a part", value=1)]) == signature + header + end
    assert apply(PNG, [change("overwrite a part", place=0.5, other=1, value=2)]) == signature + header + end + end


def test_a_changed_number_gets_past_the_checksum():
    changed = apply(PNG, [change("set a number", place=0.3, value=1)])  # the width, and the second of the extremes
    assert changed == PNG
    changed = apply(PNG, [change("set a number", place=0.3, value=2)])
    header = changed[12:29]
    assert (header[4:8], int.from_bytes(changed[29:33], "big")) == (b"\0\0\0\2", zlib.crc32(header))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF1234WEBP", b"BM", b"II*\0", b"MM\0+"]
)
def test_every_change_can_be_applied_to_any_data(kind, data):
    for place in (0, 0.5, 1):
        assert isinstance(apply(data, [change(kind, place, place, 2**32 - 1)], data), bytes)


def test_checksums_are_mended():
    broken = PNG.replace(b"IHDR\0\0\0\1", b"IHDR\0\0\0\2")
    assert mend_checksums(broken)[8:33] == png_chunk(b"IHDR", broken[16:29])
    assert mend_checksums(b"no PNG") == b"no PNG"


@pytest.mark.parametrize("name", seeds())
def test_the_sides_of_every_image_are_found(name):
    """So that a destroyed header has other sides."""
    structure = read_structure(seeds()[name])
    assert any(number.is_side for number in structure.numbers)
    assert len(structure.parts) >= 2 or name.startswith("webp")
    assert all(data != seeds()[name] for data in destroyed_headers(seeds()[name]))
