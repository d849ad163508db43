"""Explanations over REST and gRPC, with and without the edge, and a model that is told when to abstain.

The model is the tiny one that does not know blue images. It is served with another threshold.
"""

import asyncio
import base64
import io
import json

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import program
from tests.support.images import encode, solid
from tests.support.server import Live, serving
from tests.support.tiny_archive import BLUE, PLACES, RED, SIDE
from vinegrape_client import AsyncClient, Client
from vinegrape_client.errors import BadRequest

pytestmark = [pytest.mark.live, pytest.mark.tools, pytest.mark.xdist_group("explanation_server")]

EXPLANATIONS, KSERVE = "/explanations/vinegrape", "/v1/models/vinegrape:explain"
JSON = {"accept": "application/json", "content-type": "application/octet-stream"}
PNG = {**JSON, "accept": "image/png"}


@pytest.fixture(scope="module")
def live(abstaining_archive, tmp_path_factory):
    """The model, served with one worker behind the edge."""
    program("haproxy", "haproxy")
    log = tmp_path_factory.mktemp("explanations") / "log"
    with serving(abstaining_archive, log, edge=True, ood_threshold=0.25, abstain="known") as running:
        yield running


def half_red(side: str) -> bytes:
    """An image in the size of the network's input that is red at one side and black at the other."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[:, slice(SIDE // 2) if side == "left" else slice(SIDE // 2, None), 0] = 255
    return encode(Image.fromarray(pixels), "PNG")


def expected(side: str) -> list[list[float]]:
    row = [1.0] * (PLACES // 2) + [0.0] * (PLACES // 2)
    return [row if side == "left" else row[::-1]] * PLACES


@pytest.fixture(params=["edge_port", "rest_port"])
def base(request, live) -> str:
    """The address of the edge, and that of TorchServe, which is without the edge what clients use."""
    return f"http://127.0.0.1:{live.ports[request.param]}"


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("path", [EXPLANATIONS, KSERVE])
def test_an_explanation_over_rest(base, path, side):
    body = httpx.post(base + path, content=half_red(side), headers=JSON).json()
    assert (body["label"], body["explanation"]["class"]) == ("Ak", "Ak")
    assert body["explanation"]["values"] == expected(side)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_picture(base, side):
    response = httpx.put(base + EXPLANATIONS, content=half_red(side), headers=PNG)
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
    light = np.asarray(Image.open(io.BytesIO(response.content)), int).sum(axis=(0, 2))
    assert light.argmax() < len(light) / 2 if side == "left" else light.argmax() >= len(light) / 2


def test_several_images(base):
    images = [base64.b64encode(image).decode() for image in (half_red("left"), b"a text")]
    body = {"instances": [{"b64": text} for text in images]}
    first, second = httpx.post(base + EXPLANATIONS, json=body, headers={"accept": "application/json"}).json()[
        "predictions"
    ]
    assert (first["explanation"]["values"], second["error"]["code"]) == (expected("left"), 415)


def test_the_class_in_a_form(base):
    response = httpx.post(base + EXPLANATIONS, files={"image": solid(RED)}, data={"class": "Nazli"})
    assert response.json()["explanation"]["class"] == "Nazli"


def test_the_class_in_the_query(live):
    url = f"http://127.0.0.1:{live.ports['edge_port']}{EXPLANATIONS}"
    explained = httpx.post(url, content=solid(RED), headers=JSON, params={"class": "Buzgulu"}).json()["explanation"]
    assert (explained["class"], np.max(explained["values"])) == ("Buzgulu", 0)
    response = httpx.post(url, content=solid(RED), headers=PNG, params={"class": "Riesling"})
    assert (response.status_code, response.json()["error"]["type"]) == (400, "bad_request")


def test_the_description_says_that_there_are_explanations(base):
    description = httpx.get(f"{base}/predictions/vinegrape", headers={"accept": "application/json"}).json()
    assert (description["explanations"], description["ood_threshold"]) == (True, 0.25)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{edge_port}", "http://127.0.0.1:{rest_port}", "grpc://127.0.0.1:{edge_port}"]
)
def test_the_clients_explain(live, url):
    url = url.format(**live.ports)

    async def explain_async() -> list[object]:
        async with AsyncClient(url) as client:
            return [await client.explain(half_red("left")), await client.explain(half_red("left"), class_="Nazli")]

    with Client(url) as client:
        explained = client.explain(half_red("left"))
        assert explained.prediction == client.predict(half_red("left"))
        assert (explained.class_, [list(row) for row in explained.values]) == ("Ak", expected("left"))
        assert asyncio.run(explain_async()) == [explained, client.explain(half_red("left"), class_="Nazli")]
        with pytest.raises(BadRequest, match="'Riesling'; it must be one of"):
            client.explain(solid(RED), class_="Riesling")


def test_invalid_inputs_over_grpc(live):
    import grpc

    from vinegrape_client.inference_pb2 import PredictionsRequest
    from vinegrape_client.inference_pb2_grpc import InferenceAPIsServiceStub

    with grpc.insecure_channel(live.grpc_address) as channel:
        stub = InferenceAPIsServiceStub(channel)

        def refusal(**inputs: bytes) -> str:
            request = PredictionsRequest(model_name="vinegrape", input={"data": solid(RED), **inputs})
            with pytest.raises(grpc.RpcError) as raised:
                stub.Predictions(request, timeout=60)
            error = json.loads(raised.value.details())["error"]
            assert error["type"] == "bad_request"
            return error["message"]

        assert "it must be 1, or 0" in refusal(explain=b"yes")
        assert "Set the input 'explain' to 1" in refusal(**{"class": b"Ak"})
        assert "has 2000 bytes" in refusal(explain=b"1", **{"class": b"A" * 2000})
        request = PredictionsRequest(model_name="vinegrape", input={"data": solid(RED), "explain": b"0"})
        assert "explanation" not in json.loads(stub.Predictions(request, timeout=60).prediction)


# Abstention as the settings say


def test_an_unknown_image_keeps_its_label(live):
    """The image's OOD score, 0.4, is below the threshold in the archive and above that of the settings."""
    pale = solid((255, 255, 102))
    before = counted_as_unknown(live)
    rest = live.post(pale, headers=JSON).json()
    assert (rest["known"], rest["label"], rest["ood_score"]) == (False, "Ak", 0.4)
    assert json.loads(live.call(pale)) == rest
    listed = live.client.post("/predictions/vinegrape?format=huggingface", content=pale, headers=JSON).json()
    assert listed[0]["label"] == "Ak"
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(pale).decode()]}
    inferred = live.client.post("/v2/models/vinegrape/infer", json={"inputs": [tensor]}).json()
    values = {output["name"]: output["data"][0] for output in inferred["outputs"] if len(output["data"]) == 1}
    assert (values["label"], values["known"]) == ("Ak", False)
    assert live.post(solid(BLUE), headers=JSON).json()["label"] == "Buzgulu"
    assert counted_as_unknown(live) == before + 5


def counted_as_unknown(live: Live) -> float:
    return live.metrics().get(("vinegrape_predictions_total", "unknown", "tiny"), 0)
