"""Checks of settings. Every message states the value, the allowed range and the setting's full name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from vinegrape_handler.errors import SettingError

Settings = TypeVar("Settings")


def check_number(name: str, value: object, kind: type[int] | type[float], least: float, most: float) -> None:
    """Check that a setting is a number in a range, both ends included.

    Args:
        name: full name in the configuration, such as "optimizer.mixup".
        value: value to check.
        kind: `int` for whole numbers only, `float` for any number.
        least: smallest allowed value.
        most: largest allowed value.

    Raises:
        SettingError: the value is of another type or outside the range.
    """
    is_number = isinstance(value, (int, kind)) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:  # type: ignore[operator]
        noun = "a whole number" if kind is int else "a number"
        raise SettingError(f"{name} is {value!r}; it must be {noun} from {least} to {most}.")


def read_group(settings: type[Settings], group: str, values: Mapping[str, Any]) -> Settings:
    """Make a settings dataclass from a group of the configuration.

    Args:
        settings: dataclass that checks its fields.
        group: name of the group, such as "optimizer", for error messages.
        values: keys and values of the group. The field of a missing key becomes None.

    Raises:
        SettingError: a key that the dataclass does not have, or a value that it rejects.
    """
    names = [field.name for field in dataclasses.fields(settings)]  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise SettingError(f"{group}.{name} is not a setting. Valid settings: {', '.join(sorted(names))}.")
    return settings(**{name: values.get(name) for name in names})
