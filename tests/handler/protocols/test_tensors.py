import numpy as np
import pytest

from vinegrape_handler.errors import BadRequest
from vinegrape_handler.protocols.tensors import flatten, read_bytes, read_uint8, to_binary


@pytest.mark.parametrize("data", [[1, 2, 3, 4], [[1, 2], [3, 4]], [[[1], [2]], [[3], [4]]]])
def test_lists_are_flattened(data):
    assert flatten(data) == [1, 2, 3, 4]


def test_lists_of_different_depth_are_refused():
    with pytest.raises(BadRequest, match="not everywhere"):
        flatten([[1], 2])
    assert flatten([]) == flatten([[], []]) == []


@pytest.mark.parametrize("content", [memoryview(bytes(range(12))), list(range(12))])
def test_bytes_are_read_in_row_major_order(content):
    np.testing.assert_array_equal(read_uint8(content, [1, 2, 2, 3]), np.arange(12).reshape(1, 2, 2, 3))


@pytest.mark.parametrize("value", [-1, 256, 10**30, 1.0, "1", None, [1]])
def test_a_value_that_is_no_byte_is_refused(value):
    with pytest.raises(BadRequest, match="whole numbers from 0 to 255"):
        read_uint8([0, value], [2])


@pytest.mark.parametrize("content", [memoryview(b"abc"), [1, 2, 3]])
def test_another_number_of_values_is_refused(content):
    with pytest.raises(BadRequest, match=r"has 3 values; its shape \[2, 2\] needs 4"):
        read_uint8(content, [2, 2])


def test_byte_strings_stand_after_their_lengths():
    binary = b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c"
    assert read_bytes(memoryview(binary), 3) == [b"ab", b"", b"c"]
    assert to_binary(["ab", "", "c"], "BYTES") == binary
    assert to_binary(["ü"], "BYTES") == b"\x02\0\0\0\xc3\xbc"


@pytest.mark.parametrize("binary", [b"\x02\0\0", b"\x02\0\0\0a", b"\xff\xff\xff\xffa", b"\x01\0\0\0ab"])
def test_a_byte_string_that_is_cut_off_is_refused(binary):
    with pytest.raises(BadRequest, match="ends within an element"):
        read_bytes(memoryview(binary), 2)


@pytest.mark.parametrize(("count", "word"), [(1, "more"), (3, "fewer")])
@pytest.mark.parametrize("content", [memoryview(b"\x01\0\0\0a" * 2), ["a", "b"]])
def test_another_number_of_byte_strings_is_refused(content, count, word):
    with pytest.raises(BadRequest, match=f"{word} elements than its shape, {count}"):
        read_bytes(content, count)


def test_many_empty_byte_strings_are_not_split():
    with pytest.raises(BadRequest, match="more elements"):
        read_bytes(memoryview(bytes(4 * 1000)), 2)


@pytest.mark.parametrize("value", [1, None, {}, ["a"]])
def test_an_element_that_is_no_text_is_refused(value):
    with pytest.raises(BadRequest, match="must be strings"):
        read_bytes([value], 1)


def test_numbers_are_little_endian():
    assert to_binary([[1.0, 0.5]], "FP32") == b"\0\0\x80\x3f\0\0\0\x3f"
    assert to_binary([True, False], "BOOL") == b"\x01\0"
