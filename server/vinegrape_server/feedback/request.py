"""Read the body of `POST /feedback`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vinegrape_handler.errors import BadRequest, TooLarge
from vinegrape_handler.instances import parse_json

MAX_BYTES = 1_000_000
MAX_ITEMS = 1000
OTHER = "other"
"""The truth of an image that shows none of the model's varieties."""

_FORM = '{"label": "...", "probability": 0.9, "truth": "..."}, or a list of these'
_REQUIRED = ("label", "probability", "truth")
_OPTIONAL = ("known", "version")
_MAX_VALUES = MAX_ITEMS * (len(_REQUIRED) + len(_OPTIONAL) + 1) + 1
_MAX_CHARACTERS = 64  # of the names and the version of another model


@dataclass(frozen=True)
class Feedback:
    """One prediction, and what its image really shows.

    Attributes:
        version: of the model that made the prediction.
        label: the predicted label; None if the image had none.
        probability: of the most probable class, 0 to 1.
        known: whether the model knew the image.
        truth: the true variety, or `OTHER`.
    """

    version: str
    label: str | None
    probability: float
    known: bool
    truth: str


def read_feedback(body: bytes, version: str, classes: Sequence[str]) -> list[Feedback]:
    """Read one piece of feedback, or a list of them.

    Args:
        body: JSON in UTF-8.
        version: of the served model. It is the version of feedback that names none.
        classes: of the served model. Feedback to this version may name no others.

    Raises:
        BadRequest: the JSON has another form, or a value is invalid. Then no feedback of the request is valid.
        TooLarge: the list is too long.
    """
    parsed = parse_json(body, _MAX_VALUES, _FORM)
    if not isinstance(parsed, list):
        return [_read(parsed, "", version, classes)]
    if not parsed:
        raise BadRequest(f"The list of feedback is empty; it must be {_FORM}.")
    if len(parsed) > MAX_ITEMS:
        raise TooLarge(f"The list has {len(parsed)} pieces of feedback; at most {MAX_ITEMS} are accepted.")
    return [_read(item, f"Feedback {index}: ", version, classes) for index, item in enumerate(parsed)]


def _read(item: Any, place: str, served: str, classes: Sequence[str]) -> Feedback:
    """Read one piece of feedback; `place` begins each error message."""
    if not isinstance(item, dict):
        raise BadRequest(f"{place}It must be an object such as {_FORM}.")
    if missing := [key for key in _REQUIRED if key not in item]:
        raise BadRequest(f"{place}The key {missing[0]!r} is missing.")
    if unknown := [key for key in item if key not in _REQUIRED + _OPTIONAL]:
        allowed = ", ".join(_REQUIRED + _OPTIONAL)
        raise BadRequest(f"{place}The key {unknown[0][:_MAX_CHARACTERS]!r} is not one of {allowed}.")
    version = _text(item.get("version", served), "version", place)
    names = classes if version == served else None
    label = None if item["label"] is None else _name(item["label"], "label", place, names)
    truth = _name(item["truth"], "truth", place, names and (*names, OTHER))
    known = item.get("known", label is not None)
    if not isinstance(known, bool):
        raise BadRequest(f"{place}known is {_short(known)}; it must be true or false.")
    if known and label is None:
        raise BadRequest(f"{place}known is true, but label is null. A prediction that is known has a label.")
    return Feedback(version, label, _probability(item["probability"], place), known, truth)


def _probability(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadRequest(f"{place}probability is {_short(value)}; it must be a number from 0 to 1.")
    return float(value)


def _name(value: Any, key: str, place: str, names: Sequence[str] | None) -> str:
    """Read a name, which must be one of `names`, unless that is None."""
    text = _text(value, key, place)
    if names is not None and text not in names:
        raise BadRequest(f"{place}{key} is {text!r}; it must be one of {', '.join(names)}.")
    return text


def _text(value: Any, key: str, place: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= _MAX_CHARACTERS or not value.isprintable():
        raise BadRequest(f"{place}{key} is {_short(value)}; it must be text of 1 to {_MAX_CHARACTERS} characters.")
    return value


def _short(value: Any) -> str:
    return repr(value)[:_MAX_CHARACTERS]
