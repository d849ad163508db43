"""The check of the wire format: what is counted, and what is refused before protobuf parses it."""

import pytest

from vinegrape_handler.errors import BadRequest
from vinegrape_server.gateway.open_inference_pb2 import InferTensorContents, ModelInferRequest
from vinegrape_server.gateway.wire import Shape, check_fields

# Inputs and their contents are counted; a list of numbers may have three bytes
SHAPE = Shape(messages={5: Shape(messages={5: Shape(max_bytes={4: 3})})})


def message(contents: InferTensorContents, inputs: int = 1) -> bytes:
    tensor = ModelInferRequest.InferInputTensor(name="image", contents=contents)
    return ModelInferRequest(model_name="vinegrape", inputs=[tensor] * inputs).SerializeToString()


def check(serialized: bytes, most: int = 100) -> None:
    check_fields(serialized, "ModelInferRequest", most, SHAPE)


def test_fields_of_inner_messages_are_counted():
    # model_name, and for each input: the input, its name, its contents and the two elements
    serialized = message(InferTensorContents(bytes_contents=[b"1", b"2"]), inputs=3)
    check(serialized, most=1 + 3 * 5 + 1)
    with pytest.raises(BadRequest, match="more than 15 fields"):
        check(serialized, most=15)


def test_only_known_messages_are_read():
    check_fields(message(InferTensorContents(bytes_contents=[b""] * 1000)), "ModelInferRequest", 3)


def test_a_list_of_numbers_may_not_be_large():
    check(message(InferTensorContents(uint_contents=[1, 2, 3])))
    with pytest.raises(BadRequest, match="raw_input_contents"):
        check(message(InferTensorContents(uint_contents=[1, 2, 3, 4])))


@pytest.mark.parametrize(
    ("serialized", "reason"),
    [
        (b"\x2b", "a group"),
        (b"\x2a\x01\x2b", "a group"),
        (b"\x2a\x05\x0a", "ends within a field"),
        (b"\x2a\x02\x0a\x05", "ends within a field"),
        (b"\x2a\xff", "an integer has no end"),
        (b"\x0d\x00", "ends within a field"),
    ],
)
def test_what_is_no_message_is_refused(serialized, reason):
    with pytest.raises(BadRequest, match=reason):
        check(serialized)
