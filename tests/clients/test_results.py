import pytest

from tests.support import stand_in
from vinegrape_client import Description, Prediction
from vinegrape_client.errors import UnexpectedResponse


def test_a_prediction_of_a_later_model_is_read():
    body = {
        "label": None,
        "probability": 0.4,
        "probabilities": {"Ak": 0.4, "Nazli": 0.6},
        "known": False,
        "ood_score": 7.5,
        "model": {"name": "vinegrape", "version": "2"},
    }
    prediction = Prediction.from_json(body)
    assert (prediction.label, prediction.known, prediction.ood_score) == (None, False, 7.5)
    assert prediction.to_json() == body


def test_keys_that_the_model_does_not_have_are_left_out():
    body = stand_in.prediction()
    assert Prediction.from_json(body).to_json() == body


@pytest.mark.parametrize(
    "body", [None, [], "Ak", {}, stand_in.prediction(model=None), stand_in.prediction(probability="high")]
)
def test_another_body_is_no_prediction(body):
    with pytest.raises(UnexpectedResponse, match="not a prediction"):
        Prediction.from_json(body)


def test_another_body_is_no_description():
    with pytest.raises(UnexpectedResponse, match="does not describe"):
        Description.from_json({"name": "vinegrape"})
