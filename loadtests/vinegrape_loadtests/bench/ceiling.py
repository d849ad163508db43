"""The handler's functions in processes of their own: the highest throughput that any server around them can reach."""

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
from vinegrape_handler.errors import RequestError
from vinegrape_handler.images.decode import Limits
from vinegrape_handler.memory import retain_freed_memory
from vinegrape_handler.metadata import Metadata
from vinegrape_handler.networks import load_network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import available_backends, choose_backend


@dataclass(frozen=True)
class ProcessResult:
    """The result of one process.

    Attributes:
        latencies_s: seconds of each request.
        cpu_s: CPU seconds of all requests together.
    """

    latencies_s: list[float]
    cpu_s: float


def make_predictor(folder: Path) -> Callable[[bytes], bytes]:
    """Return a function that decodes, resizes and classifies an encoded image and returns the JSON response.

    The function has a worker's default settings. For an invalid image it raises a RequestError.

    Args:
        folder: an unpacked archive.
    """
    retain_freed_memory("worker")
    settings, metadata = WorkerSettings(), Metadata.read(folder)
    backend = choose_backend("auto", available_backends(folder), on_gpu=False)
    classifier = Classifier(metadata, load_network(folder, backend, settings, "cpu"), Limits.of(settings))

    def predict(image: bytes) -> bytes:
        (result,) = classifier.classify([image])
        if isinstance(result, RequestError):
            raise result
        return answer.encode(answer.prediction(result, metadata, settings.abstain))

    return predict


class Ceiling:
    """Processes that wait for work, one per core."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = connections

    def run(self, bodies: Sequence[bytes], seconds: float, processes: int | None = None) -> list[ProcessResult]:
        """Classify images in turn for some seconds, in every process at the same time.

        Args:
            bodies: encoded images.
            seconds: duration.
            processes: number of processes that work; all if None.

        Returns:
            One result per process.
        """
        connections = self._connections[:processes]
        for connection in connections:
            connection.send((tuple(bodies), seconds))
        return [connection.recv() for connection in connections]


@contextlib.contextmanager
def start_ceiling(folder: Path, processes: int) -> Iterator[Ceiling]:
    """Start the processes, and end them at the end of the block.

    Args:
        folder: an unpacked archive.
        processes: number of processes.
    """
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(folder, theirs), daemon=True)
            process.start()
            theirs.close()  # so that the end of the process ends a receive, too
            stack.callback(process.join)
            stack.callback(process.terminate)
            connections.append(stack.enter_context(ours))
        for connection in connections:
            connection.recv()  # its network is loaded
        yield Ceiling(connections)


def _serve(folder: Path, connection: Connection) -> None:
    predict = make_predictor(folder)
    connection.send(None)
    while True:
        bodies, seconds = connection.recv()
        latencies = []
        cpu, start = time.process_time(), time.perf_counter()
        for body in itertools.cycle(bodies):
            before = time.perf_counter()
            if before - start >= seconds:
                break
            predict(body)
            latencies.append(time.perf_counter() - before)
        connection.send(ProcessResult(latencies, time.process_time() - cpu))
