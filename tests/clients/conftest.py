"""Fixtures that the tests of the client share."""

import pytest

from tests.support.blocking_client import KINDS
from tests.support.repack import read_self_check


@pytest.fixture(params=KINDS)
def connect(request):
    """A class of clients: `Client`, and `AsyncClient` with the same interface."""
    return KINDS[request.param]


@pytest.fixture(scope="session")
def image(tiny_archive) -> bytes:
    """A red image: the first self-check image of `tiny_archive`."""
    _, (red, _) = read_self_check(tiny_archive)
    return red
