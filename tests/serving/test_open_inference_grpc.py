"""The Open Inference Protocol over gRPC: Triton's client, with the edge and without it, and hostile messages."""

import json

import grpc
import numpy as np
import pytest

from tests.conftest import program
from tests.support.images import solid
from tests.support.processes import gateway
from tests.support.server import serving
from tests.support.tiny_archive import BLUE, CLASSES, GREEN, RED, SIDE, probabilities
from tests.support.triton_grpc import triton
from vinegrape_server.gateway.open_inference_pb2 import InferTensorContents, ModelInferRequest, ModelInferResponse

pytestmark = [pytest.mark.live, pytest.mark.tools, pytest.mark.xdist_group("open_inference_grpc")]

SERVICE = "inference.GRPCInferenceService"
TIMEOUT_S = 60
COLOURS = (RED, GREEN, BLUE)
OUTPUTS = ("probabilities", "label", "known", "ood_score")


@pytest.fixture(scope="module")
def live(abstaining_archive, tmp_path_factory):
    program("haproxy", "haproxy")
    with serving(abstaining_archive, tmp_path_factory.mktemp("open_inference") / "log", edge=True) as running:
        yield running


@pytest.fixture(params=["edge_port", "grpc_port"])
def address(live, request):
    """The edge's address, and that of the gateway behind it."""
    return f"127.0.0.1:{live.ports[request.param]}"


@pytest.fixture
def client(address):
    with triton.InferenceServerClient(address) as opened:
        yield opened


@pytest.fixture
def infer(address):
    with grpc.insecure_channel(address) as channel:
        method = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        yield lambda message: method(message, timeout=TIMEOUT_S)


def encoded(*images: bytes) -> triton.InferInput:
    return triton.InferInput("image", [len(images)], "BYTES").set_data_from_numpy(np.array(images, object))


def pixels() -> triton.InferInput:
    array = np.stack([np.full((SIDE, SIDE, 3), colour, np.uint8) for colour in COLOURS])
    return triton.InferInput("pixels", list(array.shape), "UINT8").set_data_from_numpy(array)


@pytest.mark.parametrize("make", [lambda: encoded(*map(solid, COLOURS)), pixels], ids=["image", "pixels"])
def test_triton_client_gets_every_output(client, make):
    result = client.infer("vinegrape", [make()], request_id="7")
    np.testing.assert_allclose(
        result.as_numpy("probabilities"), [probabilities(colour) for colour in COLOURS], atol=1e-5
    )
    assert result.as_numpy("label").tolist() == [b"Ak", b"Ala_Idris", b""]
    assert result.as_numpy("known").tolist() == [True, True, False]
    assert result.as_numpy("ood_score").tolist() == [0, 0, 1]
    assert (result.get_response().id, result.get_response().model_version) == ("7", "tiny")


def test_triton_client_gets_the_output_that_it_asks_for(client):
    asked = [triton.InferRequestedOutput("label")]
    result = client.infer("vinegrape", [encoded(solid(GREEN))], model_version="tiny", outputs=asked)
    assert result.as_numpy("label").tolist() == [b"Ala_Idris"]
    assert [output.name for output in result.get_response().outputs] == ["label"]


def test_triton_client_reads_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    ready = [client.is_model_ready(*model) for model in (("vinegrape",), ("vinegrape", "tiny"), ("other",))]
    assert [*ready, client.is_model_ready("vinegrape", "2")] == [True, True, False, False]
    server = client.get_server_metadata()
    assert (server.name, server.version, list(server.extensions)) == ("vinegrape", "tiny", ["binary_tensor_data"])
    model = client.get_model_metadata("vinegrape")
    assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in model.inputs] == [
        ("image", "BYTES", [-1]),
        ("pixels", "UINT8", [-1, SIDE, SIDE, 3]),
    ]
    assert [tensor.name for tensor in model.outputs] == list(OUTPUTS)
    assert list(model.outputs[0].shape) == [-1, len(CLASSES)]


def request(name: str = "image", datatype: str = "BYTES", shape=(1,), contents=None, **fields) -> bytes:
    tensor = ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape, contents=contents)
    return ModelInferRequest(**{"model_name": "vinegrape", "inputs": [tensor], **fields}).SerializeToString()


def test_contents_in_the_message_itself(infer):
    contents = InferTensorContents(bytes_contents=[solid(RED), solid(BLUE)])
    response = ModelInferResponse.FromString(infer(request(shape=[2], contents=contents)))
    assert response.raw_output_contents[1] == b"\x02\0\0\0Ak\0\0\0\0"
    assert response.raw_output_contents[2] == b"\1\0"


BAD_REQUEST = ("INVALID_ARGUMENT", 400, "bad_request")

# Message, status, and code and type of the error
ERRORS = {
    "a text": (
        request(contents=InferTensorContents(bytes_contents=[b"a leaf"])),
        ("INVALID_ARGUMENT", 415, "unsupported_format"),
    ),
    "no image": (request(shape=[0], raw_input_contents=[b""]), ("INVALID_ARGUMENT", 400, "no_image")),
    "another shape": (request(shape=[9], raw_input_contents=[b""]), BAD_REQUEST),
    "another input": (request(name="x", raw_input_contents=[b""]), BAD_REQUEST),
    "many images": (request(shape=[99], raw_input_contents=[b""]), ("INVALID_ARGUMENT", 413, "too_large")),
    "another model": (request(model_name="other"), ("NOT_FOUND", 404, "not_found")),
    "another version": (request(model_version="2"), ("NOT_FOUND", 404, "not_found")),
    "no message": (b"", ("NOT_FOUND", 404, "not_found")),
    "no protobuf": (b"no protobuf", BAD_REQUEST),
    "a large message": (request(raw_input_contents=[bytes(30_000_001)]), ("INVALID_ARGUMENT", 413, "too_large")),
    "millions of elements": (
        request(contents=InferTensorContents(bytes_contents=[b""] * 2_000_000)), BAD_REQUEST,
    ),
    "millions of raw contents": (
        request(raw_input_contents=[b""] * 2_000_000), BAD_REQUEST,
    ),
    "millions of numbers": (
        request(contents=InferTensorContents(int64_contents=[0] * 2_000_000)), BAD_REQUEST,
    ),
    "a long shape": (request(shape=[1] * 2_000_000), BAD_REQUEST),
    "groups in groups": (b"\x1b" * 100_000, BAD_REQUEST),
    "a name that is not UTF-8": (b"\x0a\x02\xff\xfe", BAD_REQUEST),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_a_status_with_json(live, infer, name):
    message, expected = ERRORS[name]
    process = gateway(live.process)
    infer(request(raw_input_contents=[_element(solid(RED))]))
    resident = process.memory_info().rss
    with pytest.raises(grpc.RpcError) as raised:
        infer(message)
    error = json.loads(raised.value.details())["error"]
    assert (raised.value.code().name, error["code"], error["type"]) == expected
    assert error["message"]
    assert process.memory_info().rss - resident < 200_000_000


def _element(image: bytes) -> bytes:
    return len(image).to_bytes(4, "little") + image
