import pytest

from vinegrape_client.inference_pb2 import PredictionResponse, PredictionsRequest
from vinegrape_loadtests.chaos.protobuf import prediction, predictions_request, predictions_request_of_keys


def parse(message: bytes):
    return PredictionsRequest.FromString(message)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 70_000])
def test_a_request_is_read_by_grpc_as_it_was_meant(size):
    request = parse(predictions_request(b"x" * size))
    assert request.model_name == "vinegrape"
    assert dict(request.input) == {"data": b"x" * size}


def test_a_request_of_many_keys_has_that_many():
    request = parse(predictions_request_of_keys(20_000))  # more than two of the key's characters hold
    assert len(request.input) == 20_000
    assert set(request.input.values()) == {b""}


@pytest.mark.parametrize("body", [b"", b"{}", b"y" * 300])
def test_a_response_of_grpc_is_read(body):
    assert prediction(PredictionResponse(prediction=body).SerializeToString()) == body


@pytest.mark.parametrize("message", [b"\x12\x01x", b"\x0a\x05x"])
def test_another_message_is_an_error(message):
    with pytest.raises(ValueError, match="no PredictionResponse"):
        prediction(message)
