"""Classify files with an archive, in processes of this machine, without a server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import zipfile
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from vinegrape_client import Prediction, Result, VinegrapeError
from vinegrape_client.client import MAX_IMAGE_BYTES
from vinegrape_client.errors import make_error
from vinegrape_client.images import read_image
from vinegrape_client.ordered import map_in_order
from vinegrape_handler.errors import ArchiveError
from vinegrape_server.archive_info import ArchiveInfo
from vinegrape_server.host.processes import die_with_parent
from vinegrape_server.worker.main import Service
from vinegrape_server.worker.protocol import LoadRequest, WireRequest

_AHEAD = 4  # results per process that may wait for a slow image before them


def predict_files(
    archive: Path, paths: Sequence[str], concurrency: int, metrics_folder: Path | None = None
) -> Generator[Result, None, None]:
    """Classify files as a server with this archive does, and yield one result per file, in order.

    Each process loads the handler that the archive contains, by the code of the server's worker.

    Args:
        archive: a model archive.
        paths: the files.
        concurrency: maximum processes; there is at most one per core.
        metrics_folder: where the processes write their metrics, as workers do; None writes none.

    Raises:
        ArchiveError: the archive cannot be used.
    """
    ArchiveInfo.read(archive)
    return _predict(archive, paths, concurrency, metrics_folder)


def _predict(
    archive: Path, paths: Sequence[str], concurrency: int, metrics_folder: Path | None
) -> Generator[Result, None, None]:
    processes = max(1, min(concurrency, len(os.sched_getaffinity(0)), len(paths)))
    with tempfile.TemporaryDirectory(prefix="vinegrape-") as folder:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        handler = json.loads((Path(folder) / "MAR-INF" / "MANIFEST.json").read_bytes())["model"]["handler"]
        # spawn: the processes must not inherit threads of this one
        with ProcessPoolExecutor(processes, get_context("spawn"), _load, (folder, handler, metrics_folder)) as pool:
            try:
                yield from map_in_order(pool, _classify, paths, _AHEAD * processes)
            except BrokenProcessPool as error:
                raise ArchiveError(
                    f"A process that classifies with {archive} has ended. The lines above state the reason; if there "
                    "are none, the machine may lack memory: lower --concurrency."
                ) from error


# In each process

_services: list[Service] = []


def _load(folder: str, handler: str, metrics_folder: Path | None) -> None:
    die_with_parent()
    if metrics_folder:  # prometheus_client reads the variable when the handler imports it
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(metrics_folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the command, and the command ends this process
    # multiprocessing has imported the command line, and with it a part of the installed handler
    for name in [name for name in sys.modules if name.partition(".")[0] == "vinegrape_handler"]:
        del sys.modules[name]
    with contextlib.redirect_stdout(sys.stderr):
        _services.append(Service(LoadRequest(folder, 1, handler, None)))


def _classify(path: str) -> Result:
    try:
        request = WireRequest(b"", {}, {"body": read_image(path, MAX_IMAGE_BYTES)})
        (response,) = _services[0].respond([request])
        body = json.loads(response.body)
        if "error" in body:
            error = body["error"]
            raise make_error(error["code"], error["type"], error["message"])
        return Result(path, Prediction.from_json(body))
    except (VinegrapeError, OSError) as error:
        return Result(path, error=error)
