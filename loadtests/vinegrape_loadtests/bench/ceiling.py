"""The handler's own functions in processes of their own: what no server around them can exceed."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from vinegrape_handler import answer
from vinegrape_handler.classifier import Classifier
from vinegrape_handler.decode import Limits
from vinegrape_handler.errors import RequestError
from vinegrape_handler.memory import retain_freed_memory
from vinegrape_handler.metadata import Metadata
from vinegrape_handler.networks import load_network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import available_backends, choose_backend


@dataclass(frozen=True)
class Share:
    """What one process did: the seconds of each request, and of its processor all together."""

    latencies_s: list[float]
    cpu_s: float


def work(folder: Path) -> Callable[[bytes], bytes]:
    """Decode, resize, network and answer, as a worker does them by default.

    Args:
        folder: an unpacked archive.
    """
    retain_freed_memory("worker")
    settings, metadata = WorkerSettings(), Metadata.read(folder)
    backend = choose_backend("auto", available_backends(folder), on_gpu=False)
    classifier = Classifier(metadata, load_network(folder, backend, settings, "cpu"), Limits.of(settings))

    def ask(data: bytes) -> bytes:
        (result,) = classifier.classify([data])
        if isinstance(result, RequestError):
            raise result
        return answer.encode(answer.prediction(result, metadata))

    return ask


class Ceiling:
    """As many processes as cores, which wait until they are asked."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = connections

    def run(self, bodies: Sequence[bytes], seconds: float, processes: int | None = None) -> list[Share]:
        """Answer bodies in turn for some time, in all processes at once or in some."""
        asked = self._connections[:processes]
        for connection in asked:
            connection.send((tuple(bodies), seconds))
        return [connection.recv() for connection in asked]


@contextlib.contextmanager
def ceiling(folder: Path, processes: int) -> Iterator[Ceiling]:
    """Start the processes, and end them with the block."""
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(folder, theirs), daemon=True)
            process.start()
            stack.callback(process.terminate)
            connections.append(stack.enter_context(ours))
        for connection in connections:
            connection.recv()  # loaded
        yield Ceiling(connections)


def _serve(folder: Path, connection: Connection) -> None:
    ask = work(folder)
    connection.send(None)
    while True:
        bodies, seconds = connection.recv()
        latencies = []
        cpu, start = time.process_time(), time.perf_counter()
        for body in itertools.cycle(bodies):
            before = time.perf_counter()
            if before - start >= seconds:
                break
            ask(body)
            latencies.append(time.perf_counter() - before)
        connection.send(Share(latencies, time.process_time() - cpu))
