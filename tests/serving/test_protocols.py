"""Standard protocols through the whole way: their own clients, HAProxy, TorchServe, a worker.

The model is the tiny one that does not know blue images.
"""

import base64

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from huggingface_hub import InferenceClient
from tritonclient.utils import InferenceServerException

from tests.conftest import program
from tests.support.images import solid
from tests.support.server import Live, serving
from tests.support.tiny_archive import BLUE, GREEN, RED, SIDE, probabilities

pytestmark = [pytest.mark.live, pytest.mark.tools, pytest.mark.xdist_group("protocol_server")]

COLOURS = (RED, GREEN, BLUE)
IMAGES = np.array([solid(colour) for colour in COLOURS], object)
PIXELS = np.stack([np.full((SIDE, SIDE, 3), colour, np.uint8) for colour in COLOURS])
BASE64 = np.array([base64.b64encode(image) for image in IMAGES], object)


@pytest.fixture(scope="module")
def protocol_server(abstaining_archive, tmp_path_factory):
    """The model, served with one worker behind the edge."""
    program("haproxy", "haproxy")
    with serving(abstaining_archive, tmp_path_factory.mktemp("protocols") / "log", edge=True) as live:
        yield live


def url(live: Live, path: str = "/predictions/vinegrape") -> str:
    return f"http://127.0.0.1:{live.ports['edge_port']}{path}"


@pytest.fixture(scope="module")
def client(protocol_server):
    with triton.InferenceServerClient(f"127.0.0.1:{protocol_server.ports['edge_port']}") as opened:
        yield opened


# The Open Inference Protocol with Triton's client


def infer_input(name, array, datatype, *, binary=True) -> triton.InferInput:
    return triton.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array, binary_data=binary)


INPUTS = {
    "encoded": lambda: infer_input("image", IMAGES, "BYTES"),
    "encoded, [N, 1]": lambda: infer_input("image", IMAGES[:, None], "BYTES"),
    "encoded, JSON": lambda: infer_input("image", BASE64, "BYTES", binary=False),
    "pixels": lambda: infer_input("pixels", PIXELS, "UINT8"),
    "pixels, JSON": lambda: infer_input("pixels", PIXELS, "UINT8", binary=False),
}
OUTPUTS = {
    "default": None,
    "binary": [triton.InferRequestedOutput(name) for name in ("probabilities", "label", "known", "ood_score")],
    "JSON": [
        triton.InferRequestedOutput(name, binary_data=False)
        for name in ("probabilities", "label", "known", "ood_score")
    ],
}


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("inputs", INPUTS)
def test_triton_client_gets_every_output(client, inputs, outputs):
    result = client.infer("vinegrape", [INPUTS[inputs]()], outputs=OUTPUTS[outputs], request_id="7")
    computed = result.as_numpy("probabilities")
    assert computed.dtype == np.float32
    np.testing.assert_allclose(computed, [probabilities(colour) for colour in COLOURS], atol=1e-5)
    labels = [label if isinstance(label, str) else label.decode() for label in result.as_numpy("label")]
    assert labels == ["Ak", "Ala_Idris", ""]
    assert result.as_numpy("known").tolist() == [True, True, False]
    assert result.as_numpy("ood_score").tolist() == [0, 0, 1]
    assert (result.get_response()["id"], result.get_response()["model_version"]) == ("7", "tiny")


def test_triton_client_gets_the_output_that_it_asks_for_from_the_version_that_it_names(client):
    outputs = [triton.InferRequestedOutput("label")]
    result = client.infer("vinegrape", [INPUTS["pixels"]()], model_version="tiny", outputs=outputs)
    assert result.as_numpy("label").tolist() == [b"Ak", b"Ala_Idris", b""]
    assert result.as_numpy("probabilities") is None


def test_triton_client_reads_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("vinegrape")
    assert client.is_model_ready("vinegrape", "tiny")
    assert not client.is_model_ready("vinegrape", "other")
    assert not client.is_model_ready("other")
    assert client.get_server_metadata() == {
        "name": "vinegrape", "version": "tiny", "extensions": ["binary_tensor_data"],
    }  # fmt: skip
    metadata = client.get_model_metadata("vinegrape")
    assert metadata == client.get_model_metadata("vinegrape", "tiny")
    assert [tensor["name"] for tensor in metadata["outputs"]] == ["probabilities", "label", "known", "ood_score"]
    assert {tensor["name"]: tensor["shape"] for tensor in metadata["inputs"]} == {
        "image": [-1], "pixels": [-1, SIDE, SIDE, 3],
    }  # fmt: skip


def refusal(call) -> tuple[str, str]:
    """The status and the message of the exception that Triton's client raises."""
    with pytest.raises(InferenceServerException) as raised:
        call()
    assert str(raised.value) == f"[{raised.value.status()}] {raised.value.message()}"
    return raised.value.status(), raised.value.message()


def test_the_error_of_one_image_is_that_of_the_request(client):
    mixed = np.array([IMAGES[0], b"no image"], object)
    status, message = refusal(lambda: client.infer("vinegrape", [infer_input("image", mixed, "BYTES")]))
    assert status == "415"
    assert message.startswith("The image with index 1 has an error: This is text.")


def test_triton_client_shows_the_errors_of_a_request(client):
    def infer(array, datatype, name="pixels", **options):
        return refusal(lambda: client.infer("vinegrape", [infer_input(name, array, datatype)], **options))

    assert infer(PIXELS.astype(np.float32), "FP32")[0] == "400"
    assert infer(PIXELS[:, 1:], "UINT8") == (
        "400",
        "The shape of 'pixels' is [3, 15, 16, 3]; it must be [N, 16, 16, 3].",
    )
    assert infer(PIXELS, "UINT8", "input")[0] == "400"
    assert infer(PIXELS, "UINT8", outputs=[triton.InferRequestedOutput("other")])[0] == "400"
    assert infer(PIXELS, "UINT8", outputs=[triton.InferRequestedOutput("label", class_count=2)])[0] == "400"
    assert infer(np.repeat(PIXELS, 11, axis=0), "UINT8") == (
        "413",
        "The request has 33 images; at most 32 are accepted.",
    )
    status, _ = infer(PIXELS, "UINT8", request_compression_algorithm="gzip")
    assert status == "400"
    assert infer(PIXELS, "UINT8", model_version="other")[0] == "404"
    assert refusal(lambda: client.infer("other", [INPUTS["pixels"]()]))[0] == "404"
    assert refusal(client.get_model_repository_index)[0] == "404"


def test_requests_of_different_protocols_are_counted_alike(protocol_server, client):
    def count() -> float:
        return protocol_server.metrics().get(("vinegrape_predictions_total", "unknown", "tiny"), 0)

    before = count()
    client.infer("vinegrape", [INPUTS["pixels"]()])
    httpx.post(url(protocol_server), content=IMAGES[2])
    assert count() == before + 2


# KServe's first protocol, and Vertex AI


def test_kserve_v1(protocol_server):
    assert httpx.get(url(protocol_server, "/v1/models")).json() == {"models": ["vinegrape"]}
    assert httpx.get(url(protocol_server, "/v1/models/vinegrape")).json() == {"name": "vinegrape", "ready": True}
    body = {"instances": [{"b64": text.decode()} for text in BASE64]}
    response = httpx.post(url(protocol_server, "/v1/models/vinegrape:predict"), json=body)
    assert [prediction["label"] for prediction in response.json()["predictions"]] == ["Ak", "Ala_Idris", None]
    response = httpx.post(url(protocol_server, "/v1/models/vinegrape:explain"), json=body)
    explanations = [prediction["explanation"] for prediction in response.json()["predictions"]]
    assert [explanation["class"] for explanation in explanations] == ["Ak", "Ala_Idris", "Buzgulu"]


@pytest.mark.parametrize("parameters", [{}, {"parameters": {"confidenceThreshold": 0.5}}, {"parameters": None}])
def test_the_bodies_of_vertex_ai(protocol_server, parameters):
    """Vertex AI passes a prediction request's instances and parameters on to the container's predictRoute."""
    assert httpx.get(url(protocol_server, "/ping")).status_code == 200
    body = {"instances": [{"b64": BASE64[0].decode()}, {"b64": "AAAA"}], **parameters}
    headers = {"content-type": "application/json; charset=utf-8"}
    response = httpx.post(url(protocol_server), json=body, headers=headers)
    assert response.status_code == 200
    first, second = response.json()["predictions"]
    assert (first["label"], second["error"]["code"]) == ("Ak", 415)


# The parameters of our own protocol


def test_top_k_with_the_edge(protocol_server):
    response = httpx.post(url(protocol_server), content=IMAGES[0], params={"top_k": 2})
    assert list(response.json()["probabilities"].items()) == [("Ak", 0.75), ("Dimnit", 0.15)]
    response = httpx.post(url(protocol_server), content=IMAGES[0], params={"top_k": 0})
    assert (response.status_code, response.json()["error"]["type"]) == (400, "bad_request")


@pytest.mark.parametrize("edge", [True, False])
def test_parameters_as_form_fields(protocol_server, edge):
    port = protocol_server.ports["edge_port" if edge else "rest_port"]

    def post(**parameters: str) -> httpx.Response:
        address = f"http://127.0.0.1:{port}/predictions/vinegrape"
        return httpx.post(address, files={"image": IMAGES[0]}, data=parameters)

    assert list(post(top_k="2").json()["probabilities"].items()) == [("Ak", 0.75), ("Dimnit", 0.15)]
    assert post(top_k="1", format="huggingface").json() == [{"label": "Ak", "score": 0.75}]
    assert (post(top_k="all").status_code, post(format="other").status_code) == (400, 400)


def test_the_client_of_hugging_face(protocol_server):
    client = InferenceClient(model=url(protocol_server, "/predictions/vinegrape?format=huggingface"))
    labels = client.image_classification(IMAGES[0])
    assert [(item.label, item.score) for item in labels[:2]] == [("Ak", 0.75), ("Dimnit", 0.15)]
    assert len(labels) == 5
    assert client.image_classification(IMAGES[2]) == []
