"""Peak memory of a server under load. A container's memory limit must be higher."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import psutil
from PIL import Image

from vinegrape_handler.settings import WorkerSettings
from vinegrape_loadtests.client import instances_body, post
from vinegrape_loadtests.images import draw_photo, encode
from vinegrape_loadtests.local.processes import pss_mib
from vinegrape_loadtests.local.server import serving

_SAMPLE_S = 0.05
COLUMNS = ("Java", "largest worker", "serve", "all")
_COLUMN_OF = {"Java": "Java", "worker": "largest worker", "supervisor": "serve"}


@dataclass(frozen=True)
class MemoryRow:
    """The memory that a server needed for one kind of request.

    Attributes:
        name: name of the request.
        peak_mib: the highest PSS while the load ran, by column, in MiB.
        responses: how often each HTTP status, or each kind of error, was returned.
    """

    name: str
    peak_mib: dict[str, float]
    responses: Counter[str]

    @property
    def complete(self) -> bool:
        """Whether every response was a success; else the load was too high, and the peak is too low."""
        return not self.responses.keys() - {"200"}


def measure_memory(connections: int, seconds: float, image: bytes) -> Iterator[MemoryRow]:
    """Start a server, and yield one row per kind of request as soon as it is measured.

    Args:
        connections: clients that send requests at the same time.
        seconds: duration of each load.
        image: an encoded image, as clients usually send it.
    """
    requests = make_requests(image, WorkerSettings.from_environment())
    with serving(stdout=subprocess.DEVNULL) as server:
        for name, body in {"started": b"", **requests}.items():
            with PeakMemory(server.process.pid) as peak:
                responses = send_all(server.predictions_url, body, connections, seconds) if body else Counter[str]()
            yield MemoryRow(name, peak.mib, responses)


def format_header() -> str:
    """Format the columns' names."""
    return f"{'':30}{''.join(f'{name:>16}' for name in COLUMNS)}   responses"


def format_row(row: MemoryRow) -> str:
    """Format one row."""
    counts = "  ".join(f"{status}: {count}" for status, count in row.responses.items())
    return f"{row.name:30}{''.join(f'{row.peak_mib[column]:16.0f}' for column in COLUMNS)}   {counts}".rstrip()


def make_requests(image: bytes, settings: WorkerSettings) -> dict[str, bytes]:
    """Build request bodies by name, from a usual image to the largest that the settings allow."""
    side = int((settings.max_image_bytes / 3) ** 0.5) - 10  # 10 less, for the BMP's header and padding
    largest = encode(Image.frombytes("RGB", (side, side), os.urandom(side * side * 3)), "BMP")
    width = settings.max_image_pixels // 5000
    return {
        "the image": image,
        "photo, 12 megapixels": draw_photo(),
        "most pixels, RGBA": encode(Image.new("RGBA", (width, 5000)), "PNG"),
        "most pixels, 16 bits": encode(Image.new("I;16", (width, 5000)), "PNG"),
        "most bytes": largest,
        "most instances": instances_body([image] * settings.max_instances),
        "most bytes, as instances": instances_body([largest]),
    }


def send_all(url: str, body: bytes, connections: int, seconds: float) -> Counter[str]:
    """Send the same request from several clients for some seconds.

    Returns:
        How often each status was returned, or each exception was raised, by its name.
    """
    end, responses = time.monotonic() + seconds, Counter[str]()
    content_type = "application/json" if body.startswith(b"{") else "application/octet-stream"

    def send_until_end(_: int) -> None:
        while time.monotonic() < end:
            try:
                responses[str(post(url, body, content_type).status)] += 1
            except OSError as error:
                responses[type(error).__name__] += 1

    with concurrent.futures.ThreadPoolExecutor(connections) as pool:
        list(pool.map(send_until_end, range(connections)))
    return responses


class PeakMemory:
    """A context manager that samples the memory of a process and its descendants, and keeps the highest values."""

    def __init__(self, pid: int) -> None:
        self.mib = dict.fromkeys(COLUMNS, 0.0)
        self._pid = pid
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            for name, mib in self._sample().items():
                self.mib[name] = max(self.mib[name], mib)
            if self._end.wait(_SAMPLE_S):
                return

    def _sample(self) -> dict[str, float]:
        sample = dict.fromkeys(COLUMNS, 0.0)
        with contextlib.suppress(psutil.NoSuchProcess):
            for kind, mib in pss_mib(self._pid):
                column = _COLUMN_OF[kind]
                sample[column] = max(sample[column], mib)
                sample["all"] += mib
        return sample
