"""The server under load."""

from collections.abc import Iterator

import pytest

from tests.serving.live import Live, serving


@pytest.fixture(scope="package")
def server(archive, tmp_path_factory) -> Iterator[Live]:
    """The committed model, as `make serve` serves it, with one worker."""
    with serving(archive, tmp_path_factory.mktemp("server") / "log") as live:
        yield live
