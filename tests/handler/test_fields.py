from dataclasses import dataclass, fields
from typing import Literal

import pytest

from vinegrape_handler.errors import SettingError
from vinegrape_handler.fields import check_at_least, check_choices, choices, parse, read_environment, setting


@dataclass(frozen=True)
class Example:
    size: Literal["small", "large"] = setting("small", "size of the shirt")
    count: int = setting(1, "number of shirts")
    colour: str = setting("red", "colour of the shirt")
    computed: int = 0  # not a setting


def test_a_setting_has_a_default_and_a_meaning():
    assert Example() == Example("small", 1, "red")
    assert [field.metadata.get("meaning") for field in fields(Example)] == [
        "size of the shirt", "number of shirts", "colour of the shirt", None,
    ]  # fmt: skip


def test_only_settings_that_are_set_are_read_from_the_environment():
    environment = {"VINEGRAPE_COUNT": "7", "VINEGRAPE_COLOUR": "", "VINEGRAPE_COMPUTED": "1", "SIZE": "large"}
    assert read_environment(Example, environment) == {"count": 7, "colour": ""}
    assert read_environment(Example, {}) == {}


def test_text_is_parsed_by_the_type_of_the_default():
    assert parse(Example, "count", "-7", "--count") == -7
    assert parse(Example, "colour", "7", "--colour") == "7"


@pytest.mark.parametrize("text", ["", "two", "1.5", "1e3"])
def test_an_error_names_the_source_and_the_text_that_is_not_a_number(text):
    with pytest.raises(SettingError, match=rf"^--count is '{text}'; it must be a whole number\.$"):
        parse(Example, "count", text, "--count")
    with pytest.raises(SettingError, match=rf"^VINEGRAPE_COUNT is '{text}'; it must be a whole number\.$"):
        read_environment(Example, {"VINEGRAPE_COUNT": text})


def test_the_choices_of_a_literal():
    assert choices(Example, "size") == ("small", "large")
    assert choices(Example, "count") == choices(Example, "colour") == ()


def test_a_value_outside_a_literal_is_an_error():
    check_choices(Example("large"))
    with pytest.raises(SettingError, match=r"^size is 'medium'; it must be one of small, large\.$"):
        check_choices(Example("medium"))


def test_a_value_below_its_minimum_is_an_error():
    check_at_least(Example(count=3), count=3, computed=0)
    with pytest.raises(SettingError, match=r"^count is 2; it must be at least 3\.$"):
        check_at_least(Example(count=2), count=3)
