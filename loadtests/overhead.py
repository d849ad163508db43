"""What serving costs one client: the start of a server, and a request against the same work in this process.

Starts `vinegrape serve` itself: .venv-serve/bin/python -m loadtests.overhead
"""

from __future__ import annotations

import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from vinegrape_handler import answer, backends
from vinegrape_handler.classifier import Classifier
from vinegrape_handler.errors import RequestError
from vinegrape_handler.metadata import Metadata
from vinegrape_handler.settings import WorkerSettings

from loadtests.server import starting

HEAD = (
    b"POST /predictions/vinegrape HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n"
)
START_TIMEOUT_S = 60
RUN = 20


@click.command()
@click.option("--archive", type=click.Path(path_type=Path), default="model_store/vinegrape.mar", show_default=True)
@click.option("--image", type=click.Path(path_type=Path), default="docs/leaf.png", show_default=True)
@click.option("--starts", type=click.IntRange(1, 20), default=5, show_default=True, help="Servers to start in turn.")
@click.option("--pairs", type=click.IntRange(1, 10_000), default=25, show_default=True, help=f"Of runs of {RUN} calls.")
@click.option("--warm-up", type=click.IntRange(0, 100_000), default=1500, show_default=True, help="Calls not counted.")
def main(archive: Path, image: Path, starts: int, pairs: int, warm_up: int) -> None:
    """Time starts to the first answer, then short runs in turn: over one connection, and in this process."""
    data, options = image.read_bytes(), ("--archive", str(archive))
    start_seconds = []
    with click.progressbar(range(starts - 1), label="starting", file=sys.stderr) as bar:
        for _ in bar:
            with starting(*options, stdout=subprocess.DEVNULL) as server:
                start_seconds.append(first_answer(server.ports["rest_port"], data))
    with starting(*options, stdout=subprocess.DEVNULL) as server, unpacked(archive) as folder:
        start_seconds.append(first_answer(server.ports["rest_port"], data))
        server.wait_until_ready()
        served, in_process = client(server.ports["rest_port"]), work(folder)
        for _ in range(warm_up):
            served(data)
        differences, insides = [], []
        with click.progressbar(range(pairs), label="  asking", file=sys.stderr) as bar:
            for _ in bar:
                inside, outside = median_of_run(in_process, data), median_of_run(served, data)
                insides.append(inside)
                differences.append(outside - inside)
    inside, difference = statistics.median(insides) * 1e3, statistics.median(differences) * 1e3
    start = statistics.median(start_seconds)
    click.echo(f"served / in process: {1 + difference / inside:.2f}   (one connection, {pairs} pairs of runs of {RUN})")
    click.echo(f"in process {inside:.2f} ms, served {difference:.2f} ms more")
    click.echo(f"from `vinegrape serve` to the first answer: {start:.1f} s   (median of {starts})")


def first_answer(port: int, data: bytes) -> float:
    """Seconds from now to the first answer."""
    start = time.perf_counter()
    while time.perf_counter() - start < START_TIMEOUT_S:
        with contextlib.suppress(OSError, ValueError, click.ClickException):
            client(port)(data)
            return time.perf_counter() - start
        time.sleep(0.01)
    raise click.ClickException(f"No answer within {START_TIMEOUT_S} s.")


@contextlib.contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """The archive's content in a folder."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
        yield Path(folder)


def work(folder: Path) -> Callable[[bytes], bytes]:
    """Decode, resize, network and answer, as a worker does them by default."""
    settings, metadata = WorkerSettings(), Metadata.read(folder)
    classifier = Classifier(metadata, backends.load(folder, "onnx_int8", settings, "cpu"), settings.limits)

    def ask(data: bytes) -> bytes:
        (result,) = classifier.classify([data])
        if isinstance(result, RequestError):
            raise click.ClickException(str(result))
        return answer.encode(answer.prediction(result, metadata))

    return ask


def client(port: int) -> Callable[[bytes], bytes]:
    """One connection that is kept, and does no more than it must: its own time is not the server's."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(data: bytes) -> bytes:
        connection.sendall(HEAD % len(data) + data)
        received = connection.recv(65536)
        head, _, body = received.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        while len(body) < length:
            body += connection.recv(65536)
        if not head.startswith(b"HTTP/1.1 200"):
            raise click.ClickException(f"The server answered {head.splitlines()[0]!r}: {body!r}")
        return body

    return ask


def median_of_run(ask: Callable[[bytes], bytes], data: bytes) -> float:
    """Seconds of one call, the median of a short run: long enough that its own caches are warm."""
    times = []
    for _ in range(RUN):
        start = time.perf_counter()
        ask(data)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
