"""What an answer must be: whole, consistent in itself, the same as the first to this picture, and to no other."""

from __future__ import annotations

import json
from typing import Any

from vinegrape_loadtests.sample_requests import Failure, Question

_SUM_TOLERANCE = 1e-4  # probabilities are rounded to six decimals


class WrongAnswer(Exception):
    """Why an answer is wrong. Locust counts equal texts together, so they carry no probabilities."""


class Answers:
    """The first answer to each picture, by the version of the model, and a check of each further one."""

    def __init__(self, tolerance: float, versions: int = 1) -> None:
        """Begin without answers.

        Args:
            tolerance: by which a probability may differ from the first.
            versions: of the model that may answer.
        """
        self._tolerance = tolerance
        self._versions = versions
        self._first: dict[str, dict[str, dict[str, float]]] = {}  # by version, then by picture

    def check(self, question: Question, body: bytes, status: int | None) -> None:
        """Check one answer.

        Args:
            question: what was asked.
            body: JSON.
            status: of HTTP; none over gRPC, where the body alone says it.

        Raises:
            WrongAnswer: it is not what it must be.
        """
        answer = _read(body, status)
        if question.instances:
            self._check_predictions(question, answer, status)
        else:
            self._check_image(question.expected[0], answer, status)

    def _check_predictions(self, question: Question, answer: Any, status: int | None) -> None:
        _expect(status in (200, None), f"status {status}, not 200")
        predictions = answer.get("predictions")
        _expect(isinstance(predictions, list), 'no list "predictions"')
        count = len(question.expected)
        _expect(len(predictions) == count, f"{len(predictions)} predictions to {count} instances")
        for place, (expected, prediction) in enumerate(zip(question.expected, predictions, strict=True)):
            try:
                self._check_image(expected, prediction, None)
            except WrongAnswer as error:
                raise WrongAnswer(f"instance {place}: {error}") from error

    def _check_image(self, expected: str | Failure, answer: Any, status: int | None) -> None:
        if isinstance(expected, Failure):
            _check_failure(expected, answer, status)
            return
        _expect(status in (200, None), f"status {status}, not 200{_reason(answer)}")
        probabilities, version = _read_prediction(answer)
        _expect(version in self._first or len(self._first) < self._versions, "another version of the model")
        pictures = self._first.setdefault(version, {})
        same = [name for name, each in pictures.items() if name != expected and each == probabilities]
        _expect(not same, f"the same answer to {expected} as to {' and '.join(same)}")
        first = pictures.setdefault(expected, probabilities)
        _expect(first.keys() == probabilities.keys(), f"other classes than the first answer to {expected}")
        difference = max(abs(first[name] - probability) for name, probability in probabilities.items())
        _expect(difference <= self._tolerance, f"another answer than the first to {expected}")


def _read(body: bytes, status: int | None) -> Any:
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    _expect(isinstance(answer, dict), f"no JSON object{'' if status is None else f', with status {status}'}")
    return answer


def _check_failure(expected: Failure, answer: Any, status: int | None) -> None:
    _expect(status in (expected.status, None), f"status {status}, not {expected.status}")
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        raise WrongAnswer(f"no error, {expected.type} expected")
    _expect(error.get("type") == expected.type, f"error {error.get('type')}, not {expected.type}")
    _expect(error.get("code") == expected.status, f"error code {error.get('code')}, not {expected.status}")


def _read_prediction(answer: Any) -> tuple[dict[str, float], str]:
    """The probabilities by class, and the model's version."""
    try:
        label, probability, probabilities = answer["label"], answer["probability"], answer["probabilities"]
        most, total, version = max(probabilities.values()), sum(probabilities.values()), answer["model"]["version"]
        right = probabilities[label] == probability == most
    except (KeyError, TypeError, AttributeError, ValueError):
        raise WrongAnswer(f"no prediction{_reason(answer)}") from None
    _expect(abs(total - 1) <= _SUM_TOLERANCE, "probabilities do not sum to 1")
    _expect(right, "the label is not the most probable class, or has another probability")
    return probabilities, version


def _reason(answer: Any) -> str:
    """The type of the error that an answer carries instead, if it does."""
    error = answer.get("error") if isinstance(answer, dict) else None
    return f": {error.get('type')}" if isinstance(error, dict) else ""


def _expect(right: bool, otherwise: str) -> None:
    if not right:
        raise WrongAnswer(otherwise)
