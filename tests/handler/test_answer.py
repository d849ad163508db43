import dataclasses
import json

import numpy as np
import pytest

from tests.support.metadata import METADATA
from vinegrape_handler import answer, errors
from vinegrape_handler.classifier import Scores
from vinegrape_handler.settings import WorkerSettings


def scores(*probabilities, ood_score=None) -> Scores:
    return Scores(np.array(probabilities, np.float32), ood_score)


def test_a_prediction_has_the_most_probable_label():
    assert answer.prediction(scores(0.25, 0.75), METADATA, "label") == {
        "label": "Nazli",
        "probability": 0.75,
        "probabilities": {"Ak": 0.25, "Nazli": 0.75},
        "model": {"name": "vinegrape", "version": "0123456789ab"},
    }


@pytest.mark.parametrize(("ood_score", "label"), [(0.5, "Nazli"), (0.7654321, None)])
def test_an_image_above_the_threshold_has_no_label(ood_score, label):
    metadata = dataclasses.replace(METADATA, ood_threshold=0.5)
    assert answer.prediction(scores(0.25, 0.75, ood_score=ood_score), metadata, "label") == {
        "label": label,
        "probability": 0.75,
        "probabilities": {"Ak": 0.25, "Nazli": 0.75},
        "known": label is not None,
        "ood_score": round(ood_score, 6),
        "model": {"name": "vinegrape", "version": "0123456789ab"},
    }


def test_the_label_of_an_unknown_image_can_stay():
    metadata = dataclasses.replace(METADATA, ood_threshold=0.5)
    prediction = answer.prediction(scores(0.25, 0.75, ood_score=0.75), metadata, "known")
    assert (prediction["label"], prediction["known"]) == ("Nazli", False)


def test_without_a_threshold_an_ood_score_changes_nothing():
    assert answer.prediction(scores(0.25, 0.75, ood_score=9), METADATA, "label") == answer.prediction(
        scores(0.25, 0.75), METADATA, "label"
    )


def test_of_two_equal_probabilities_the_first_label_wins():
    assert answer.prediction(scores(0.5, 0.5), METADATA, "label")["label"] == "Ak"


def test_probabilities_have_six_decimals():
    prediction = answer.prediction(scores(1 / 3, 2 / 3), METADATA, "label")
    assert prediction["probabilities"] == {"Ak": 0.333333, "Nazli": 0.666667}


def test_the_number_of_probabilities_must_be_the_number_of_classes():
    with pytest.raises(ValueError, match="zip"):
        answer.prediction(scores(0.2, 0.3, 0.5), METADATA, "label")


@pytest.mark.parametrize(
    ("error", "code", "type_"),
    [
        (errors.BadRequest, 400, "bad_request"),
        (errors.NoImage, 400, "no_image"),
        (errors.TooLarge, 413, "too_large"),
        (errors.UnsupportedFormat, 415, "unsupported_format"),
        (errors.BrokenImage, 422, "broken_image"),
        (errors.InferenceFailed, 503, "inference_failed"),
        (errors.DeadlineExceeded, 504, "deadline_exceeded"),
        (errors.Unauthorized, 401, "unauthorized"),
        (errors.Forbidden, 403, "forbidden"),
        (errors.NotFound, 404, "not_found"),
        (errors.MethodNotAllowed, 405, "method_not_allowed"),
        (errors.UploadTimeout, 408, "upload_timeout"),
        (errors.RateLimited, 429, "rate_limited"),
        (errors.Overloaded, 429, "overloaded"),
        (errors.Unavailable, 503, "unavailable"),
    ],
)
def test_an_error_has_code_type_and_message(error, code, type_):
    expected = {"error": {"code": code, "type": type_, "message": "What is wrong."}}
    assert errors.error_body(error("What is wrong.")) == expected


def test_the_table_above_has_every_request_error():
    assert {error.__name__ for error in errors.WORKER_ERRORS} == {
        "BadRequest", "NoImage", "TooLarge", "UnsupportedFormat", "BrokenImage", "InferenceFailed", "DeadlineExceeded",
    }  # fmt: skip
    assert {error.__name__ for error in errors.REFUSALS} == {
        "Unauthorized", "Forbidden", "NotFound", "MethodNotAllowed", "UploadTimeout", "RateLimited", "Overloaded",
        "Unavailable",
    }  # fmt: skip


def test_the_description_has_the_model_and_the_limits():
    settings = WorkerSettings(max_image_bytes=1, max_image_pixels=2, max_instances=3)
    assert json.loads(answer.encode(answer.description(METADATA, settings, "onnx_int8", explains=False))) == {
        "name": "vinegrape",
        "version": "0123456789ab",
        "architecture": "small_cnn",
        "classes": ["Ak", "Nazli"],
        "input_size": 32,
        "backend": "onnx_int8",
        "formats": ["PNG", "JPEG", "WEBP", "BMP", "TIFF"],
        "limits": {"image_bytes": 1, "image_pixels": 2, "instances": 3},
        "explanations": False,
        "metrics": {"test_accuracy": 0.5},
        "data_digest": "digest",
        "libraries": {"torch": "2.12.1"},
    }


def test_the_description_has_the_threshold_of_a_model_with_one():
    metadata = dataclasses.replace(METADATA, ood_threshold=0.5)
    assert answer.description(metadata, WorkerSettings(), "onnx_int8", explains=False)["ood_threshold"] == 0.5


def test_json_is_compact_utf_8():
    assert answer.encode({"a": "ü", "b": [1, 2]}) == '{"a":"ü","b":[1,2]}'.encode()
