"""Tools for settings dataclasses: describe fields, read them from text and the environment, check their values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vinegrape_handler.errors import SettingError

ENVIRONMENT_PREFIX = "VINEGRAPE_"


def setting(default: Any, meaning: str) -> Any:
    """Declare a dataclass field with a default and a meaning, which is the option's text in `--help`."""
    return dataclasses.field(default=default, metadata={"meaning": meaning})


def read_environment(settings: type, environment: Mapping[str, str]) -> dict[str, Any]:
    """Read the values of a settings class from the variables `VINEGRAPE_<FIELD>`.

    Args:
        settings: a dataclass with fields declared by `setting`. Its other fields are ignored.
        environment: names and values of the environment variables.

    Returns:
        Values by field name, converted by `parse`. Fields without a variable are left out.

    Raises:
        SettingError: a value cannot be converted.
    """
    values = {}
    for field in dataclasses.fields(settings):
        variable = ENVIRONMENT_PREFIX + field.name.upper()
        if "meaning" in field.metadata and variable in environment:
            values[field.name] = parse(settings, field.name, environment[variable], variable)
    return values


def parse(settings: type, name: str, text: str, source: str) -> Any:
    """Convert text to the type of a field: an integer if the field's default is one, else the text itself.

    Args:
        settings: the settings class.
        name: the field's name.
        text: the value.
        source: where the value comes from, for the error message.

    Raises:
        SettingError: the text is not a whole number.
    """
    default = next(field.default for field in dataclasses.fields(settings) if field.name == name)
    if not isinstance(default, int):
        return text
    try:
        return int(text)
    except ValueError:
        raise SettingError(f"{source} is {text!r}; it must be a whole number.") from None


def choices(settings: type, name: str) -> tuple[str, ...]:
    """Return the allowed values of a field whose type is a `Literal`, and an empty tuple for any other field."""
    hint = get_type_hints(settings)[name]
    return get_args(hint) if get_origin(hint) is Literal else ()


def check_choices(settings: Any) -> None:
    """Check every field whose type is a `Literal`.

    Raises:
        SettingError: a value is not allowed.
    """
    for field in dataclasses.fields(settings):
        allowed, value = choices(type(settings), field.name), getattr(settings, field.name)
        if allowed and value not in allowed:
            raise SettingError(f"{field.name} is {value!r}; it must be one of {', '.join(allowed)}.")


def check_at_least(settings: Any, **minima: int) -> None:
    """Check that each named field is at least its minimum.

    Raises:
        SettingError: a value is too small.
    """
    for name, minimum in minima.items():
        value = getattr(settings, name)
        if value < minimum:
            raise SettingError(f"{name} is {value}; it must be at least {minimum}.")
