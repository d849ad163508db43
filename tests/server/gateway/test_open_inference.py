"""ModelInfer as a REST request of the same protocol, and the way back."""

import json

import pytest

from vinegrape_handler.errors import BadRequest
from vinegrape_server.gateway.http_client import Response
from vinegrape_server.gateway.open_inference import infer_request, infer_response
from vinegrape_server.gateway.open_inference_pb2 import (
    InferParameter,
    InferTensorContents,
    ModelInferRequest,
    ModelInferResponse,
)


def tensor(name: str = "image", datatype: str = "BYTES", shape=(1,), **contents) -> ModelInferRequest.InferInputTensor:
    filled = {"contents": InferTensorContents(**contents)} if contents else {}
    return ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape, **filled)


def translated(**fields) -> tuple[dict, bytes]:
    head, binary = infer_request(ModelInferRequest(**fields))
    return json.loads(head), binary


def test_raw_contents_follow_the_json():
    body, binary = translated(inputs=[tensor()], raw_input_contents=[b"\x03\0\0\0abc"], id="7")
    assert body == {
        "id": "7",
        "parameters": {"binary_data_output": True},
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 7}}],
    }
    assert binary == b"\x03\0\0\0abc"


def test_elements_get_their_lengths():
    body, binary = translated(inputs=[tensor(shape=[2], bytes_contents=[b"abc", b""])])
    assert binary == b"\x03\0\0\0abc\0\0\0\0"
    assert body["inputs"][0]["parameters"] == {"binary_data_size": 11}


def test_numbers_become_bytes():
    assert translated(inputs=[tensor("pixels", "UINT8", [3], uint_contents=[0, 7, 255])])[1] == b"\x00\x07\xff"


def test_parameters_and_outputs_are_passed_on():
    outputs = [ModelInferRequest.InferRequestedOutputTensor(name="label")]
    outputs[0].parameters["classification"].int64_param = 3
    parameters = {"sequence_id": InferParameter(uint64_param=5), "empty": InferParameter()}
    body, _ = translated(inputs=[tensor()], raw_input_contents=[b""], outputs=outputs, parameters=parameters)
    assert body["parameters"] == {"sequence_id": 5, "binary_data_output": True}
    assert body["outputs"] == [{"name": "label", "parameters": {"classification": 3, "binary_data": True}}]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"inputs": [tensor()]}, "no contents"),
        ({"inputs": [tensor(fp32_contents=[1.0])]}, "fp32_contents; it must have"),
        ({"inputs": [tensor(bytes_contents=[b"a"], uint_contents=[1])]}, "uint_contents and bytes_contents"),
        ({"inputs": [tensor(uint_contents=[256])]}, "from 0 to 255"),
        ({"inputs": [tensor(), tensor()], "raw_input_contents": [b""]}, "2 inputs and 1 raw_input_contents"),
        ({"inputs": [tensor(bytes_contents=[b"a"])], "raw_input_contents": [b""]}, "Send one of the two"),
    ],
)
def test_contents_that_are_missing_or_ambiguous_are_refused(fields, reason):
    with pytest.raises(BadRequest, match=reason):
        infer_request(ModelInferRequest(**fields))


def test_a_response_with_binary_outputs_becomes_a_message():
    head = json.dumps(
        {
            "model_name": "vinegrape",
            "model_version": "1",
            "id": "7",
            "outputs": [
                {"name": "known", "datatype": "BOOL", "shape": [2], "parameters": {"binary_data_size": 2}},
                {"name": "label", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 5}},
            ],
        }
    ).encode()
    headers = {"inference-header-content-length": str(len(head))}
    message = ModelInferResponse.FromString(infer_response(Response(200, headers, head + b"\x01\x00" + b"\x01\0\0\0a")))
    assert (message.model_name, message.model_version, message.id) == ("vinegrape", "1", "7")
    assert [(output.name, output.datatype, list(output.shape)) for output in message.outputs] == [
        ("known", "BOOL", [2]),
        ("label", "BYTES", [1]),
    ]
    assert list(message.raw_output_contents) == [b"\x01\x00", b"\x01\0\0\0a"]
