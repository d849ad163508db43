"""The reference of a model in its metadata."""

import dataclasses

import pytest

from tests.support.metadata import METADATA
from tests.support.tiny_archive import RED_REFERENCE
from vinegrape_handler.errors import ArchiveError
from vinegrape_handler.metadata import Metadata
from vinegrape_handler.reference import Distribution, Reference


def test_the_metadata_keep_a_reference():
    metadata = dataclasses.replace(METADATA, reference=RED_REFERENCE)
    assert Metadata.from_json(metadata.to_json()) == metadata


def test_metadata_without_a_reference_do_not_name_it():
    assert "reference" not in METADATA.to_json()


@pytest.mark.parametrize(
    ("edges", "shares"),
    [
        ((), (1.0,)),
        ((1.0, 1.0), (0.5, 0.5, 0.0)),
        ((2.0, 1.0), (0.5, 0.5, 0.0)),
        ((1.0,), (1.0,)),
        ((1.0,), (0.5, 0.4)),
        ((1.0,), (1.5, -0.5)),
    ],
)
def test_an_invalid_distribution_is_rejected(edges, shares):
    with pytest.raises(ArchiveError, match="reference distribution"):
        Distribution(edges, shares)


@pytest.mark.parametrize(("images", "labels"), [(0, {"Ak": 1.0}), (1, {}), (1, {"Ak": 0.5})])
def test_an_invalid_reference_is_rejected(images, labels):
    with pytest.raises(ArchiveError, match="The reference has"):
        Reference(images, labels, {})


def test_metadata_whose_reference_lacks_a_key_are_rejected():
    text = dataclasses.replace(METADATA, reference=RED_REFERENCE).to_json().replace('"edges"', '"borders"')
    with pytest.raises(ArchiveError, match="edges"):
        Metadata.from_json(text)
