"""Settings classes: fields with a meaning, read from text and the environment, and checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vinegrape_handler.errors import SettingError

ENVIRONMENT_PREFIX = "VINEGRAPE_"


def setting(default: Any, meaning: str) -> Any:
    """A dataclass field with its meaning, which `vinegrape serve --help` shows."""
    return dataclasses.field(default=default, metadata={"meaning": meaning})


def read_environment(settings: type, environment: Mapping[str, str]) -> dict[str, Any]:
    """Values of a settings class that the environment gives, typed as their fields are.

    Raises:
        SettingError: a value that does not read as its field's type.
    """
    fields = (field for field in dataclasses.fields(settings) if "meaning" in field.metadata)
    names = {field.name: ENVIRONMENT_PREFIX + field.name.upper() for field in fields}
    return {
        name: parse(settings, name, environment[variable], variable)
        for name, variable in names.items()
        if variable in environment
    }


def parse(settings: type, name: str, text: str, source: str) -> Any:
    """Read a field's value from text: a whole number where its default is one.

    Raises:
        SettingError: not a whole number; `source` says where the text came from.
    """
    default = next(field.default for field in dataclasses.fields(settings) if field.name == name)
    if not isinstance(default, int):
        return text
    try:
        return int(text)
    except ValueError:
        raise SettingError(f"{source} is {text!r}; it must be a whole number.") from None


def choices(settings: type, name: str) -> tuple[str, ...]:
    """The values that a field of a literal type can have; none for any other field."""
    hint = get_type_hints(settings)[name]
    return get_args(hint) if get_origin(hint) is Literal else ()


def check_choices(settings: Any) -> None:
    """Raise a SettingError for a field of a literal type with another value."""
    for field in dataclasses.fields(settings):
        allowed, value = choices(type(settings), field.name), getattr(settings, field.name)
        if allowed and value not in allowed:
            raise SettingError(f"{field.name} is {value!r}; it must be one of {', '.join(allowed)}.")


def check_at_least(settings: Any, **minima: int) -> None:
    """Raise a SettingError for a field below its minimum."""
    for name, minimum in minima.items():
        value = getattr(settings, name)
        if value < minimum:
            raise SettingError(f"{name} is {value}; it must be at least {minimum}.")
