import pytest

from vinegrape_loadtests.chaos import http2_frames as h2


def test_a_frame_is_read_as_it_was_written_also_in_two_parts():
    received = bytearray(h2.frame(h2.DATA, h2.END_STREAM, 3, b"abc") + h2.frame(h2.PING, 0, 0, bytes(8))[:5])
    assert h2.take_frame(received) == (h2.DATA, h2.END_STREAM, 3, b"abc")
    assert h2.take_frame(received) is None
    assert len(received) == 5


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (b"\x88", 200),
        (b"\x8d", 404),
        (b"\x48\x03429", 429),
        (b"\x08\x03503", 503),
        (b"\x48\x82\x64\x02", 302),  # RFC 7541, C.6.1: Huffman's code
        (b"\x00", 0),
    ],
)
def test_the_status_is_read_from_a_header_block(block, status):
    assert h2.status(block) == status


def test_a_request_block_names_its_path():
    block = h2.post_headers("/p", content_type="image/png")
    assert block == b"\x83\x86\x04\x02/p\x01\x09vinegrape\x00\x0ccontent-type\x09image/png"
