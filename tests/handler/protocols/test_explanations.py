import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.support.protocol_calls import EXPLAINING, MODEL, NAZLI, SIDE, UNKNOWN, read
from vinegrape_handler.contract import EXPLAIN_HEADER, PATH_HEADER
from vinegrape_handler.errors import BrokenImage
from vinegrape_handler.protocols.router import Router

IMAGE = b"\x89PNG\r\n\x1a\n and so on"
B64 = base64.b64encode(IMAGE).decode()
INSTANCES = json.dumps({"instances": [{"b64": B64}, {"b64": B64}]}).encode()
PATH = "/explanations/vinegrape"
BROKEN = BrokenImage("The image is damaged.")

OF_NAZLI = {"class": "Nazli", "width": 2, "height": 2, "values": [[1, 0], [0.5, 0]]}
OF_AK = {"class": "Ak", "width": 2, "height": 2, "values": [[0, 1], [0, 1]]}


def respond(query: str, *results, body=IMAGE, **headers):
    return read(f"{PATH}?{query}", body, EXPLAINING, **headers).respond(results)


@pytest.mark.parametrize("path", [PATH, "/v1/models/vinegrape:explain"])
def test_an_explanation_is_the_prediction_and_the_heat_map_of_its_class(path):
    body = read(path, IMAGE, EXPLAINING).respond([NAZLI]).body
    assert body == {**NAZLI.prediction, "explanation": OF_NAZLI}


def test_an_unknown_image_is_explained_by_its_most_probable_class():
    assert respond("", UNKNOWN).body == {**UNKNOWN.prediction, "explanation": OF_NAZLI}


def test_another_class_can_be_explained():
    assert respond("class=Ak", NAZLI).body == {**NAZLI.prediction, "explanation": OF_AK}


@pytest.mark.parametrize("query", ["class=Riesling", "class=", "class=Ak&class=Nazli", "format=huggingface", "top_k=0"])
def test_an_invalid_parameter_is_refused(query):
    response = read(f"{PATH}?{query}", IMAGE, EXPLAINING)
    assert (response.error.status, response.error.type) == (400, "bad_request")


def test_the_message_names_the_classes():
    response = read(f"{PATH}?class=Riesling", IMAGE, EXPLAINING)
    assert str(response.error) == "The parameter class is 'Riesling'; it must be one of Ak, Nazli."


def test_top_k_shortens_the_prediction():
    body = respond("top_k=1", NAZLI).body
    assert (body["probabilities"], body["explanation"]) == ({"Nazli": 0.75}, OF_NAZLI)


def test_one_invalid_image_does_not_affect_the_others():
    predictions = respond("", NAZLI, BROKEN, body=INSTANCES).body["predictions"]
    assert predictions[0]["explanation"] == OF_NAZLI
    assert predictions[1] == {"error": {"code": 422, "type": "broken_image", "message": "The image is damaged."}}


def test_a_client_that_prefers_png_gets_a_picture():
    response = respond("", NAZLI, accept="image/png")
    assert response.content_type == "image/png"
    light = np.asarray(Image.open(io.BytesIO(response.body)), int).sum(axis=2)
    assert light.shape == (SIDE, SIDE)
    assert light.argmax() == 0  # the place at the top left
    light = np.asarray(Image.open(io.BytesIO(respond("class=Ak", NAZLI, accept="image/png").body)), int).sum(axis=2)
    assert light[0, 1] > light[0, 0]


@pytest.mark.parametrize("accept", ["", "*/*", "image/*", "application/json, image/png;q=0.9", "text/html"])
def test_any_other_client_gets_json(accept):
    assert respond("", NAZLI, accept=accept).body["explanation"] == OF_NAZLI


def test_the_error_of_an_image_is_json_for_a_client_that_prefers_png():
    response = respond("", BROKEN, accept="image/png")
    assert (response.error, response.content_type) == (BROKEN, "application/json")


def test_several_images_get_no_picture():
    response = read(PATH, INSTANCES, EXPLAINING, accept="image/png")
    assert (response.error.status, "Only one image" in str(response.error)) == (400, True)


def test_a_request_without_an_image_is_refused():
    response = read(PATH, b"", EXPLAINING, accept="application/json")
    assert (response.error.status, response.error.type) == (400, "no_image")


def test_a_model_without_activation_maps_gives_no_explanations():
    response = read(PATH, IMAGE, MODEL)
    assert (response.error.status, response.error.type) == (404, "not_found")
    assert "export it again" in str(response.error)


def test_without_a_path_torchserves_header_tells_explanations_from_predictions():
    router = Router(EXPLAINING)
    assert router.choose({EXPLAIN_HEADER: "True"}) is not router.choose({})
    assert router.choose({EXPLAIN_HEADER: {"content-type": "text/plain"}}) is router.choose({})
    stated = {PATH_HEADER: "/predictions/vinegrape"}
    assert router.choose({**stated, EXPLAIN_HEADER: "True"}) is router.choose(stated)
