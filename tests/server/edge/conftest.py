"""Fixtures that the tests of the edge share."""

from collections.abc import Iterator

import pytest

from tests.support.edge import Edge, running_edge


@pytest.fixture(scope="session")
def edge(tmp_path_factory) -> Iterator[Edge]:
    """An edge with the default settings, in front of stand-ins."""
    with running_edge(tmp_path_factory.mktemp("edge")) as running:
        yield running
