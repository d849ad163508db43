"""Checks of responses: complete, consistent, and the same for the same image. A refusal is not wrong."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any, Protocol

from vinegrape_loadtests.client import HttpResponse
from vinegrape_loadtests.sample_requests import ExpectedError, SampleRequest

_SUM_TOLERANCE = 1e-4  # probabilities are rounded to six decimals
_REFUSALS = ("overloaded", "rate_limited")  # types of error

# The gRPC status of each HTTP status, as docs/api.md states it; written again here, because it is what is checked
_GRPC_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    405: "UNIMPLEMENTED",
    408: "DEADLINE_EXCEEDED",
    413: "INVALID_ARGUMENT",
    415: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class WrongResponse(Exception):
    """A response is not as expected. Locust counts equal messages together, so they contain no probabilities."""


class GrpcError(Protocol):
    """The part of a failed gRPC call, `grpc.RpcError`, that is read. Importing gRPC here would be slow."""

    def code(self) -> Any:
        """Return the status."""

    def details(self) -> str | None:
        """Return the text of the status."""

    def trailing_metadata(self) -> Any:
        """Return pairs of name and value."""


class RequestRefused(Exception):
    """The server has refused the request, because it has too many. This is no fault.

    Attributes:
        retry_after_s: seconds after which the client may send a request again.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"refused; retry after {retry_after_s} s")
        self.retry_after_s = retry_after_s


def read_grpc_error(error: GrpcError) -> HttpResponse:
    """Return the response of a call that has failed.

    Args:
        error: the exception that gRPC raised. Its details must be the JSON of an error.

    Raises:
        WrongResponse: the details contain no error, as when the connection fails, or one with another status.
    """
    status, details = error.code().name, error.details() or ""
    try:
        code = json.loads(details)["error"]["code"]
    except (ValueError, LookupError, TypeError):
        raise WrongResponse(f"gRPC {status} without an error of the server") from None
    expected = _GRPC_STATUS.get(code)
    _require(status == expected, f"gRPC {status} with the error code {code}, not {expected}")
    return HttpResponse(code, details.encode(), dict(error.trailing_metadata() or ()).get("retry-after", ""))


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

    def check(self, request: SampleRequest, response: HttpResponse) -> None:
        """Check one response.

        Args:
            request: the request that was sent.
            response: the response, whose body must be JSON.

        Raises:
            RequestRefused: the server has refused the request.
            WrongResponse: the response is not as expected.
        """
        body = _parse(response)
        if response.status == HTTPStatus.TOO_MANY_REQUESTS:
            _check_refusal(body, response)
        elif request.instances:
            self._check_predictions(request, body, response.status)
        else:
            self._check_image(request.expected[0], body, response.status)

    def _check_predictions(self, request: SampleRequest, response: Any, status: int) -> None:
        _require(status == HTTPStatus.OK, f"status {status}, not 200{_error_type(response)}")
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
        """Check an answer or an error; `status` is None for one of several instances."""
        if isinstance(expected, ExpectedError):
            _check_error(expected, response, status)
            return
        _require(status in (HTTPStatus.OK, None), f"status {status}, not 200{_error_type(response)}")
        probabilities, version = _parse_prediction(response)
        _require(version in self._first or len(self._first) < self._versions, "another version of the model")
        images = self._first.setdefault(version, {})
        same = [name for name, first in images.items() if name != expected and first == probabilities]
        _require(not same, f"the same response to {expected} as to {' and '.join(same)}")
        first = images.setdefault(expected, probabilities)
        _require(first.keys() == probabilities.keys(), f"other classes than in the first response to {expected}")
        difference = max(abs(first[name] - probability) for name, probability in probabilities.items())
        _require(difference <= self._tolerance, f"differs from the first response to {expected}")


def _parse(response: HttpResponse) -> Any:
    try:
        body = json.loads(response.body)
    except ValueError:
        body = None
    _require(isinstance(body, dict), f"no JSON object, with status {response.status}")
    return body


def _check_refusal(body: Any, response: HttpResponse) -> None:
    """Raise RequestRefused if the response is a complete refusal, else WrongResponse."""
    error = body.get("error")
    _require(isinstance(error, dict) and error.get("type") in _REFUSALS, f"status 429{_error_type(body)}")
    _check_error(ExpectedError(HTTPStatus.TOO_MANY_REQUESTS, error["type"]), body, response.status)
    valid = response.retry_after.isdecimal() and int(response.retry_after) > 0
    _require(valid, f"status 429 with the Retry-After {response.retry_after!r}")
    raise RequestRefused(int(response.retry_after))


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
        # A model that does not know the image gives it no label
        abstains = label is None and response["known"] is False
        consistent = probability == highest and (abstains or probabilities[label] == highest)
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
