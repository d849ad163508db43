"""A server that tests of this folder share."""

from collections.abc import Iterator

import pytest

from tests.support.server import Live, serving


@pytest.fixture(scope="session")
def batching_server(tiny_archive, tmp_path_factory) -> Iterator[Live]:
    """The model of `tiny_archive`, with one worker that waits up to a second for a batch of 4 requests."""
    log = tmp_path_factory.mktemp("batching") / "log"
    with serving(tiny_archive, log, batch_size=4, max_batch_delay_ms=1000) as live:
        yield live
