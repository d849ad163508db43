"""For any bytes, `decode` returns an image or raises a RequestError, and other images of the batch are not affected."""

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.images import grey
from tests.support.metadata import METADATA
from vinegrape_handler.classifier import Classifier
from vinegrape_handler.errors import RequestError
from vinegrape_handler.images.decode import Limits
from vinegrape_handler.networks import Outputs
from vinegrape_loadtests.fuzz.checks import OK, STATUSES, check_destroyed, outcome
from vinegrape_loadtests.fuzz.mutations import KINDS, Change, apply, destroyed_headers, random_changes
from vinegrape_loadtests.fuzz.seeds import seeds

LIMITS = Limits(max_bytes=200_000, max_pixels=100_000)
SIDE = 16

FRACTIONS = st.floats(0, 1)
CHANGE = st.builds(Change, st.sampled_from(tuple(KINDS)), FRACTIONS, FRACTIONS, st.integers(0, 2**32 - 1))
NAME = st.sampled_from(tuple(seeds()))
CHANGED_IMAGE = st.builds(
    lambda name, donor, changes: apply(seeds()[name], changes, seeds()[donor]),
    NAME, NAME, st.lists(CHANGE, min_size=1, max_size=4),
)  # fmt: skip

each_seed = pytest.mark.parametrize("name", seeds())
pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow warns about damaged metadata


@each_seed
def test_the_images_from_which_fuzzing_starts_are_valid(name):
    assert outcome(seeds()[name], LIMITS, SIDE) == OK


@each_seed
def test_a_destroyed_header_is_an_error(name):
    """Without its signature, and with sizes that no image has."""
    destroyed = list(destroyed_headers(seeds()[name]))
    assert len(destroyed) >= 3
    assert {outcome(data, LIMITS, SIDE) for data in destroyed} <= {413, 415, 422}


@each_seed
def test_a_truncated_file_gives_an_image_or_an_error(name):
    data = seeds()[name]
    for length in range(0, len(data), max(1, len(data) // 60)):
        assert outcome(data[:length], LIMITS, SIDE) in STATUSES


@settings(max_examples=1000, deadline=None, derandomize=True)
@given(CHANGED_IMAGE)
def test_a_changed_file_gives_an_image_or_an_error(data):
    assert outcome(data, LIMITS, SIDE) in STATUSES


@settings(max_examples=200, deadline=None, derandomize=True)
@given(CHANGED_IMAGE)
def test_a_changed_file_with_a_destroyed_header_is_an_error(data):
    check_destroyed(data, LIMITS, SIDE)


def mean_grey(batch):
    """A network that returns the mean of each image."""
    return Outputs(batch.mean(axis=(1, 2, 3), dtype=np.float32)[:, None])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(CHANGED_IMAGE)
def test_images_beside_a_changed_one_get_their_right_answers(data):
    classifier = Classifier(dataclasses.replace(METADATA, input_size=SIDE), mean_grey, LIMITS)
    before, changed, after = classifier.classify([grey(9), data, grey(200)])
    assert (before.probabilities, after.probabilities) == (9, 200)
    assert isinstance(changed, RequestError) == (outcome(data, LIMITS, SIDE) != OK)


@each_seed
def test_random_changes_find_both_images_and_errors(name):
    """Otherwise the changes would be too weak or too strong to test anything."""
    rng = random.Random(name)
    found = {outcome(apply(seeds()[name], random_changes(rng), seeds()["png"]), LIMITS, SIDE) for _ in range(300)}
    assert OK in found
    assert found - {OK}
