import logging
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _reset_logging():
    """Remove the log handler that `Handler.initialize` adds: a test may have run before that made a handler."""
    log = logging.getLogger("vinegrape_handler")
    log.handlers.clear()
    log.propagate = True
    yield
    log.handlers.clear()
    log.propagate = True


@pytest.fixture(scope="session")
def tiny_torch_model(tiny_torch_archive, tmp_path_factory) -> Path:
    """The unpacked tiny archive with the weights of every backend; needs torch."""
    folder = tmp_path_factory.mktemp("tiny_torch_model")
    with zipfile.ZipFile(tiny_torch_archive) as archive:
        archive.extractall(folder)
    return folder
