import dataclasses
import json

import pytest

from tests.support.metadata import METADATA
from vinegrape_handler.errors import ArchiveError
from vinegrape_handler.metadata import METADATA_FILE, Metadata


def json_with(**values) -> str:
    return json.dumps(json.loads(METADATA.to_json()) | values)


def test_metadata_is_read_back_from_its_json():
    assert Metadata.from_json(METADATA.to_json()) == METADATA
    assert Metadata.from_json(METADATA.to_json().encode()) == METADATA


def test_equal_metadata_has_equal_json():
    other = dataclasses.replace(METADATA, libraries={"torch": "2.12.1"}, metrics={"test_accuracy": 0.5})
    assert other.to_json() == METADATA.to_json()
    assert METADATA.to_json().startswith('{\n  "architecture": "small_cnn",\n')


def test_a_threshold_is_read_back_and_stands_in_the_file_only_if_there_is_one():
    metadata = dataclasses.replace(METADATA, ood_threshold=0.5)
    assert Metadata.from_json(metadata.to_json()) == metadata
    assert "ood_threshold" not in METADATA.to_json()


def test_metadata_is_read_from_a_folder(tmp_path):
    (tmp_path / METADATA_FILE).write_text(METADATA.to_json())
    assert Metadata.read(tmp_path) == METADATA


def test_a_folder_without_metadata_is_reported(tmp_path):
    with pytest.raises(ArchiveError, match=f"{tmp_path} has no metadata.json"):
        Metadata.read(tmp_path)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_format_version_is_reported_with_the_supported_one(version):
    with pytest.raises(ArchiveError, match=f"has format_version {version}; this code reads 1"):
        Metadata.from_json(json_with(format_version=version, a_field_of_another_version=1))


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", "[]", "null", "1", '"text"', "{}", '{"format_version": 1}', b"\xff\xfe", b"\x89PNG"],
)
def test_text_that_is_not_metadata_is_reported(text):
    with pytest.raises(ArchiveError, match=r"metadata\.json is not the metadata"):
        Metadata.from_json(text)


@pytest.mark.parametrize("missing", ["name", "classes", "input_size", "self_check", "temperature"])
def test_a_missing_field_is_named(missing):
    values = json.loads(METADATA.to_json())
    del values[missing]
    with pytest.raises(ArchiveError, match=missing):
        Metadata.from_json(json.dumps(values))


def test_an_unknown_field_is_named():
    with pytest.raises(ArchiveError, match="colour"):
        Metadata.from_json(json_with(colour="green"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": ["Ak"]}, r"\['Ak'\]; there must be at least two, all different"),
        ({"classes": ["Ak", "Ak"]}, "at least two, all different"),
        ({"input_size": 0}, "input_size is 0; it must be at least 1 pixel"),
        ({"interpolation": "nearest"}, "'nearest'; it must be one of bilinear, bicubic"),
        ({"temperature": 0}, "temperature is 0; it must be above 0"),
        ({"temperature": -1.5}, "temperature is -1.5; it must be above 0"),
        ({"temperature": "warm"}, "is not the metadata"),
        ({"self_check": [{"file": "0.png"}]}, "is not the metadata"),
    ],
)
def test_an_invalid_value_is_reported(values, message):
    with pytest.raises(ArchiveError, match=message):
        Metadata.from_json(json_with(**values))
