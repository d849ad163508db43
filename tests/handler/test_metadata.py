import dataclasses
import json

import pytest

from tests.support.metadata import METADATA
from vinegrape_handler.errors import ArchiveError
from vinegrape_handler.metadata import METADATA_FILE, Metadata


def changed(**values) -> str:
    return json.dumps(json.loads(METADATA.to_json()) | values)


def test_text_and_back():
    assert Metadata.from_json(METADATA.to_json()) == METADATA


def test_bytes_are_read_too():
    assert Metadata.from_json(METADATA.to_json().encode()) == METADATA


def test_the_same_metadata_gives_the_same_text():
    other = dataclasses.replace(METADATA, libraries={"torch": "2.12.1"}, metrics={"test_accuracy": 0.5})
    assert other.to_json() == METADATA.to_json()
    assert METADATA.to_json().startswith('{\n  "architecture": "small_cnn",\n')


def test_read_from_a_folder(tmp_path):
    (tmp_path / METADATA_FILE).write_text(METADATA.to_json())
    assert Metadata.read(tmp_path) == METADATA


def test_a_folder_without_it(tmp_path):
    with pytest.raises(ArchiveError, match=f"{tmp_path} has no metadata.json"):
        Metadata.read(tmp_path)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_says_both(version):
    with pytest.raises(ArchiveError, match=f"has format_version {version}; this code reads 1"):
        Metadata.from_json(changed(format_version=version, a_field_of_tomorrow=1))


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[]", "null", "1", '"text"', "{}", '{"format_version": 1}', b"\xff\xfe", b"\x89PNG"],
)
def test_what_is_no_metadata(text):
    with pytest.raises(ArchiveError, match=r"metadata\.json is not the metadata"):
        Metadata.from_json(text)


@pytest.mark.parametrize("missing", ["name", "classes", "input_size", "self_check", "temperature"])
def test_a_missing_field(missing):
    values = json.loads(METADATA.to_json())
    del values[missing]
    with pytest.raises(ArchiveError, match=missing):
        Metadata.from_json(json.dumps(values))


def test_an_unknown_field():
    with pytest.raises(ArchiveError, match="colour"):
        Metadata.from_json(changed(colour="green"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"classes": ["Ak"]}, "at least two, all different"),
        ({"classes": ["Ak", "Ak"]}, "at least two, all different"),
        ({"input_size": 0}, "input_size must be at least 1 pixel; it is 0"),
        ({"interpolation": "nearest"}, "'nearest'; known are bilinear, bicubic"),
        ({"temperature": 0}, "temperature must be above 0; it is 0"),
        ({"temperature": -1.5}, "temperature must be above 0; it is -1.5"),
        ({"temperature": "warm"}, "is not the metadata"),
        ({"self_check": [{"file": "0.png"}]}, "is not the metadata"),
    ],
)
def test_a_value_that_cannot_be(values, said):
    with pytest.raises(ArchiveError, match=said):
        Metadata.from_json(changed(**values))
