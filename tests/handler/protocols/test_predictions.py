import base64
import json

import pytest

from tests.support.protocol_calls import KNOWN, NAZLI, UNKNOWN, read
from vinegrape_handler.errors import BrokenImage, DeadlineExceeded

IMAGE = b"\x89PNG\r\n\x1a\n and so on"
B64 = base64.b64encode(IMAGE).decode()
INSTANCES = json.dumps({"instances": [{"b64": B64}, {"b64": B64}]}).encode()
PATH = "/predictions/vinegrape"
BROKEN = BrokenImage("The image is damaged.")


def respond(query: str, *results, body=IMAGE):
    return read(f"{PATH}?{query}", body).respond(results).body


def test_without_parameters_a_prediction_is_not_changed():
    assert respond("", NAZLI) is NAZLI.prediction
    assert respond("other=1", NAZLI) is NAZLI.prediction


@pytest.mark.parametrize(
    ("top_k", "probabilities"),
    [(1, [("Nazli", 0.75)]), (2, [("Nazli", 0.75), ("Ak", 0.25)]), (999_999_999, [("Nazli", 0.75), ("Ak", 0.25)])],
)
def test_top_k_keeps_the_best_in_descending_order(top_k, probabilities):
    body = respond(f"top_k={top_k}", NAZLI)
    assert list(body["probabilities"].items()) == probabilities
    assert {**body, "probabilities": None} == {**NAZLI.prediction, "probabilities": None}
    predictions = respond(f"top_k={top_k}", NAZLI, BROKEN, body=INSTANCES)["predictions"]
    assert list(predictions[0]["probabilities"].items()) == probabilities
    assert predictions[1]["error"]["type"] == "broken_image"


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "", "all", "1e3", "²", "1" * 10, "1&top_k=2"])
def test_an_invalid_top_k_is_refused(value):
    response = read(f"{PATH}?top_k={value}", IMAGE)
    assert (response.error.status, response.error.type) == (400, "bad_request")
    assert "The parameter top_k is " in response.body["error"]["message"]


def test_the_form_of_hugging_face_has_labels_and_scores_in_descending_order():
    expected = [{"label": "Nazli", "score": 0.75}, {"label": "Ak", "score": 0.25}]
    assert respond("format=huggingface", NAZLI) == expected
    assert respond("format=huggingface&top_k=1", NAZLI) == expected[:1]
    body = respond("format=huggingface", NAZLI, BROKEN, body=INSTANCES)
    assert body["predictions"][0] == expected
    assert body["predictions"][1]["error"]["code"] == 422


def test_the_form_of_hugging_face_has_no_label_for_an_unknown_image():
    assert respond("format=huggingface", UNKNOWN) == []
    assert respond("format=huggingface&top_k=1", KNOWN) == [{"label": "Nazli", "score": 0.75}]


@pytest.mark.parametrize("value", ["", "json", "HuggingFace", "huggingface&format=huggingface"])
def test_another_form_is_refused(value):
    response = read(f"{PATH}?format={value}", IMAGE)
    assert (response.error.status, response.error.type) == (400, "bad_request")


def test_the_error_of_an_image_is_that_of_its_request():
    response = read(PATH, IMAGE).respond([BROKEN])
    assert response.error is BROKEN
    assert response.body == {"error": {"code": 422, "type": "broken_image", "message": "The image is damaged."}}


def test_a_deadline_that_passed_between_the_images_is_the_error_of_the_request():
    late = DeadlineExceeded("Too late.")
    assert read(PATH, INSTANCES).respond([NAZLI, late]).error is late


def test_a_get_describes_the_model():
    pending = read(PATH, accept="application/json")
    assert (pending.images, pending.respond([]).body["name"]) == ((), "vinegrape")
