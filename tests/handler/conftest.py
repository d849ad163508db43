import logging

import pytest


@pytest.fixture(autouse=True)
def _fresh_log():
    """A handler that starts keeps its log from the others; each test begins without."""
    yield
    log = logging.getLogger("vinegrape_handler")
    log.handlers.clear()
    log.propagate = True
