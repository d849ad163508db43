"""Fixtures that the tests of this folder share."""

from collections.abc import Iterator

import pytest

from tests.support.repack import read_self_check
from tests.support.server import Live, serving


@pytest.fixture(scope="session")
def image(tiny_archive) -> bytes:
    """A red image: the first self-check image of `tiny_archive`."""
    _, (red, _) = read_self_check(tiny_archive)
    return red


@pytest.fixture(scope="session")
def batching_server(tiny_archive, tmp_path_factory) -> Iterator[Live]:
    """The model of `tiny_archive`, with one worker that waits up to a second for a batch of 4 requests."""
    log = tmp_path_factory.mktemp("batching") / "log"
    with serving(tiny_archive, log, batch_size=4, max_batch_delay_ms=1000) as live:
        yield live
