"""What serving costs one client: the start of a server, and a request against the same work in this process.

Starts `vinegrape serve` itself: .venv-serve/bin/python loadtests/overhead.py
"""

from __future__ import annotations

import contextlib
import http.client
import signal
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

PATH = "/predictions/vinegrape"
PORTS = ("rest", "grpc", "metrics", "management", "grpc-management")
START_TIMEOUT_S = 60


@click.command()
@click.option("--archive", type=click.Path(path_type=Path), default="model_store/vinegrape.mar", show_default=True)
@click.option("--image", type=click.Path(path_type=Path), default="docs/leaf.png", show_default=True)
@click.option("--starts", type=click.IntRange(1, 20), default=5, show_default=True, help="Servers to start in turn.")
@click.option("--pairs", type=click.IntRange(10, 100_000), default=500, show_default=True)
@click.option("--warm-up", type=click.IntRange(0, 10_000), default=1000, show_default=True, help="Pairs not counted.")
@click.option("--first-port", type=click.IntRange(1024, 65000), default=18080, show_default=True)
def main(archive: Path, image: Path, starts: int, pairs: int, warm_up: int, first_port: int) -> None:
    """Time starts to the first answer, then pairs of requests: served over one connection, and in this process."""
    data = image.read_bytes()
    start_seconds = []
    with click.progressbar(range(starts - 1), label="starting", file=sys.stderr) as bar:
        for _ in bar:
            with serving(archive, first_port) as port:
                start_seconds.append(first_answer(port, data))
    with serving(archive, first_port) as port, unpacked(archive) as folder:
        start_seconds.append(first_answer(port, data))
        served, in_process = client(port), work(folder)
        times: list[tuple[float, float]] = []
        with click.progressbar(range(warm_up + pairs), label="  asking", file=sys.stderr) as bar:
            for number in bar:
                pair = timed(in_process, data), timed(served, data)
                times += [pair] if number >= warm_up else []
    inside, outside = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    start = statistics.median(start_seconds)
    click.echo(f"served / in process: {outside / inside:.2f}   (medians of {pairs} pairs, one connection)")
    click.echo(f"in process {inside:.2f} ms, served {outside:.2f} ms, difference {outside - inside:.2f} ms")
    click.echo(f"from `vinegrape serve` to the first answer: {start:.1f} s   (median of {starts})")


@contextlib.contextmanager
def serving(archive: Path, first_port: int) -> Iterator[int]:
    """A server with its defaults; gives its REST port."""
    ports = [part for number, name in enumerate(PORTS) for part in (f"--{name}-port", str(first_port + number))]
    command = [str(Path(sys.executable).with_name("vinegrape")), "serve", "--archive", str(archive), *ports]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        yield first_port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def first_answer(port: int, data: bytes) -> float:
    """Seconds from now to the first answer."""
    start = time.perf_counter()
    while time.perf_counter() - start < START_TIMEOUT_S:
        with contextlib.suppress(OSError, http.client.HTTPException, click.ClickException):
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
    """One connection that is kept."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(data: bytes) -> bytes:
        connection.request("POST", PATH, data, {"Content-Type": "image/png"})
        response = connection.getresponse()
        body = response.read()
        if response.status != http.HTTPStatus.OK:
            raise click.ClickException(f"The server answered {response.status}: {body!r}")
        return body

    return ask


def timed(ask: Callable[[bytes], bytes], data: bytes) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    ask(data)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
