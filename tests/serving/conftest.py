"""A server that the tests of this folder share."""

from collections.abc import Iterator

import pytest

from tests.support.server import Live, serving


@pytest.fixture(scope="session")
def batching_server(archive, tmp_path_factory) -> Iterator[Live]:
    """The committed model, waiting a second for batches of 4: four requests at once are one batch."""
    log = tmp_path_factory.mktemp("batching") / "log"
    with serving(archive, log, batch_size=4, max_batch_delay_ms=1000) as live:
        yield live
