"""Checks of responses: complete, consistent, and the same for the same image."""

from __future__ import annotations

import json
from typing import Any

from vinegrape_loadtests.sample_requests import ExpectedError, SampleRequest

_SUM_TOLERANCE = 1e-4  # probabilities are rounded to six decimals


class WrongResponse(Exception):
    """A response is not as expected. Locust counts equal messages together, so they contain no probabilities."""


class ResponseChecker:
    """Checks each response against the first one for the same image and the same version of the model."""

    def __init__(self, tolerance: float, versions: int = 1) -> None:
        """Start without known responses.

        Args:
            tolerance: the largest allowed difference of a probability from the first response.
            versions: how many versions of the model may respond.
        """
        self._tolerance = tolerance
        self._versions = versions
        self._first: dict[str, dict[str, dict[str, float]]] = {}  # by version, then by image

    def check(self, request: SampleRequest, body: bytes, status: int | None) -> None:
        """Check one response.

        Args:
            request: the request that was sent.
            body: the response's body, which must be JSON.
            status: the HTTP status; None over gRPC, where only the body reports errors.

        Raises:
            WrongResponse: the response is not as expected.
        """
        response = _parse(body, status)
        if request.instances:
            self._check_predictions(request, response, status)
        else:
            self._check_image(request.expected[0], response, status)

    def _check_predictions(self, request: SampleRequest, response: Any, status: int | None) -> None:
        _require(status in (200, None), f"status {status}, not 200")
        predictions = response.get("predictions")
        _require(isinstance(predictions, list), 'no list "predictions"')
        count = len(request.expected)
        _require(len(predictions) == count, f"{len(predictions)} predictions for {count} instances")
        for index, (expected, prediction) in enumerate(zip(request.expected, predictions, strict=True)):
            try:
                self._check_image(expected, prediction, None)
            except WrongResponse as error:
                raise WrongResponse(f"instance {index}: {error}") from error

    def _check_image(self, expected: str | ExpectedError, response: Any, status: int | None) -> None:
        if isinstance(expected, ExpectedError):
            _check_error(expected, response, status)
            return
        _require(status in (200, None), f"status {status}, not 200{_error_type(response)}")
        probabilities, version = _parse_prediction(response)
        _require(version in self._first or len(self._first) < self._versions, "another version of the model")
        images = self._first.setdefault(version, {})
        same = [name for name, first in images.items() if name != expected and first == probabilities]
        _require(not same, f"the same response to {expected} as to {' and '.join(same)}")
        first = images.setdefault(expected, probabilities)
        _require(first.keys() == probabilities.keys(), f"other classes than in the first response to {expected}")
        difference = max(abs(first[name] - probability) for name, probability in probabilities.items())
        _require(difference <= self._tolerance, f"differs from the first response to {expected}")


def _parse(body: bytes, status: int | None) -> Any:
    try:
        response = json.loads(body)
    except ValueError:
        response = None
    _require(isinstance(response, dict), f"no JSON object{'' if status is None else f', with status {status}'}")
    return response


def _check_error(expected: ExpectedError, response: Any, status: int | None) -> None:
    _require(status in (expected.status, None), f"status {status}, not {expected.status}")
    error = response.get("error") if isinstance(response, dict) else None
    if not isinstance(error, dict):
        raise WrongResponse(f"no error, {expected.type} expected")
    _require(error.get("type") == expected.type, f"error {error.get('type')}, not {expected.type}")
    _require(error.get("code") == expected.status, f"error code {error.get('code')}, not {expected.status}")


def _parse_prediction(response: Any) -> tuple[dict[str, float], str]:
    """Return the probabilities by class, and the model's version."""
    try:
        label, probability, probabilities = response["label"], response["probability"], response["probabilities"]
        highest, total, version = max(probabilities.values()), sum(probabilities.values()), response["model"]["version"]
        consistent = probabilities[label] == probability == highest
    except (KeyError, TypeError, AttributeError, ValueError):
        raise WrongResponse(f"no prediction{_error_type(response)}") from None
    _require(abs(total - 1) <= _SUM_TOLERANCE, "probabilities do not sum to 1")
    _require(consistent, "the label is not the most probable class, or has another probability")
    return probabilities, version


def _error_type(response: Any) -> str:
    """Return ": TYPE" if the response is an error, else an empty string."""
    error = response.get("error") if isinstance(response, dict) else None
    return f": {error.get('type')}" if isinstance(error, dict) else ""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise WrongResponse(message)
