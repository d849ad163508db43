"""Time and memory that one request costs a worker, each measured in a process of its own."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import resource
import time
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vinegrape_handler.errors import ArchiveError
from vinegrape_handler.handler import Handler
from vinegrape_handler.settings import WorkerSettings
from vinegrape_loadtests.worst_images.bmp import worst_bmps
from vinegrape_loadtests.worst_images.image import WorstImage
from vinegrape_loadtests.worst_images.jpeg import worst_jpegs
from vinegrape_loadtests.worst_images.json_requests import worst_requests
from vinegrape_loadtests.worst_images.png import worst_pngs
from vinegrape_loadtests.worst_images.results import Cost
from vinegrape_loadtests.worst_images.tiff import worst_tiffs
from vinegrape_loadtests.worst_images.webp import worst_webps

CRASHED, TIMED_OUT = 0, -1  # in place of a status

_LOAD_TIMEOUT_S = 120
_RESET_PEAK = "5"  # what /proc/self/clear_refs takes to set the peak to the present memory (proc_pid_clear_refs(5))


def worst_images(settings: WorkerSettings) -> list[WorstImage]:
    """List the worst images and requests that these limits allow, by format."""
    worst = (worst_pngs, worst_jpegs, worst_webps, worst_bmps, worst_tiffs, worst_requests)
    return [image for images in worst for image in images(settings)]


def measure_images(images: Sequence[WorstImage], folder: Path, timeout_s: float) -> Iterator[Cost]:
    """Yield what each image costs a worker with the settings of the environment, as soon as it is measured.

    Args:
        images: what to measure.
        folder: an unpacked archive; the code of the handler is the installed one.
        timeout_s: seconds after which a request is given up.
    """
    for image in images:
        yield measure_image(image, folder, timeout_s)


def measure_image(image: WorstImage, folder: Path, timeout_s: float) -> Cost:
    """Measure what one image costs; the arguments are those of `measure_images`."""
    body = image.draw()
    with _worker(folder) as connection:
        loaded_mib = _receive_loaded(connection)
        connection.send_bytes(body)
        try:
            status, message, ms, peak_mib = connection.recv() if connection.poll(timeout_s) else _timed_out(timeout_s)
        except EOFError:
            status, message, ms, peak_mib = CRASHED, "the process ended", 0.0, 0.0
    return Cost(
        format=image.format,
        shape=image.shape,
        sent_bytes=len(body),
        pixels=image.pixels,
        status=status,
        message=message,
        ms=round(ms, 1),
        peak_mib=round(peak_mib, 1),
        loaded_mib=round(loaded_mib, 1),
    )


def _receive_loaded(connection: Connection) -> float:
    try:
        return float(connection.recv())
    except EOFError:
        raise ArchiveError("The handler could not be loaded; see the lines above.") from None


def _timed_out(timeout_s: float) -> tuple[int, str, float, float]:
    return TIMED_OUT, f"not finished after {timeout_s:g} s", 1000 * timeout_s, 0.0


@contextlib.contextmanager
def _worker(folder: Path) -> Iterator[Connection]:
    """Start a process with a loaded handler, and kill it at the end of the block."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_one, args=(folder, theirs), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process ends a receive, too
    try:
        if not ours.poll(_LOAD_TIMEOUT_S):
            raise TimeoutError(f"The handler was not loaded after {_LOAD_TIMEOUT_S} s.")
        yield ours
    finally:
        process.kill()
        process.join()
        ours.close()


def _serve_one(folder: Path, connection: Connection) -> None:
    """Load the handler, receive one body, and send its status, the error's message, milliseconds and peak memory."""
    context = _Context(folder)
    handler = Handler()
    handler.initialize(context)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what the decoders write about damaged images
    gc.collect()
    reset = _reset_peak()
    loaded_mib = _status_mib("VmRSS")
    connection.send(loaded_mib)
    row = {"body": connection.recv_bytes()}
    start = time.perf_counter()
    (body,) = handler.handle([row], context)
    ms = 1000 * (time.perf_counter() - start)
    peak_mib = _status_mib("VmHWM") if reset else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    message = "" if context.status == HTTPStatus.OK else body.decode()[:300]
    connection.send((context.status, message, ms, peak_mib - loaded_mib))


class _Context:
    """The context that TorchServe passes to a handler, for a batch of one request."""

    def __init__(self, folder: Path) -> None:
        self.system_properties: dict[str, Any] = {"model_dir": str(folder), "gpu_id": None}
        self.status = 200

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """Return no headers."""
        return {}

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        """Keep the status."""
        self.status = code

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Ignore it."""

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Ignore it."""


def _reset_peak() -> bool:
    """Set the peak of this process's memory to its present memory; return whether the system allows it."""
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _status_mib(name: str) -> float:
    """Return one line of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))
