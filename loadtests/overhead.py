"""What serving costs one client: the time of a request against the same work in this process, in pairs, in one run.

Start `make serve`, then in another terminal: .venv-serve/bin/python loadtests/overhead.py
"""

from __future__ import annotations

import http.client
import statistics
import tempfile
import time
import urllib.parse
import zipfile
from collections.abc import Callable
from pathlib import Path

import click
from vinegrape_handler import answer, backends
from vinegrape_handler.classifier import Classifier
from vinegrape_handler.errors import RequestError
from vinegrape_handler.metadata import Metadata
from vinegrape_handler.settings import WorkerSettings


@click.command()
@click.option("--url", default="http://127.0.0.1:8080/predictions/vinegrape", show_default=True)
@click.option("--archive", type=click.Path(path_type=Path), default="model_store/vinegrape.mar", show_default=True)
@click.option("--image", type=click.Path(path_type=Path), default="docs/leaf.png", show_default=True)
@click.option("--pairs", type=click.IntRange(10, 100_000), default=500, show_default=True)
@click.option("--warm-up", type=click.IntRange(0, 10_000), default=1000, show_default=True, help="Pairs not counted.")
def main(url: str, archive: Path, image: Path, pairs: int, warm_up: int) -> None:
    """Compare a server at one connection with the handler's own functions in process, backend onnx_int8 on CPU."""
    data = image.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        in_process = work(Path(folder))
        over_http = client(url)
        times: list[tuple[float, float]] = []
        with click.progressbar(range(warm_up + pairs), label="asking") as bar:
            for number in bar:
                pair = timed(in_process, data), timed(over_http, data)
                times += [pair] if number >= warm_up else []
    inside, outside = (statistics.median(column) * 1e3 for column in zip(*times, strict=True))
    click.echo(f"served / in process, medians of {pairs} pairs: {outside / inside:.2f}")
    click.echo(f"in process {inside:.2f} ms, served {outside:.2f} ms, difference {outside - inside:.2f} ms")


def work(folder: Path) -> Callable[[bytes], bytes]:
    """Decode, resize, network and answer, as a worker does them."""
    settings, metadata = WorkerSettings(), Metadata.read(folder)
    classifier = Classifier(metadata, backends.load(folder, "onnx_int8", settings, "cpu"), settings.limits)

    def ask(data: bytes) -> bytes:
        (result,) = classifier.classify([data])
        if isinstance(result, RequestError):
            raise click.ClickException(str(result))
        return answer.encode(answer.prediction(result, metadata))

    return ask


def client(url: str) -> Callable[[bytes], bytes]:
    """One connection that is kept."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)

    def ask(data: bytes) -> bytes:
        connection.request("POST", parts.path, data, {"Content-Type": "image/png"})
        response = connection.getresponse()
        body = response.read()
        if response.status != http.HTTPStatus.OK:
            raise click.ClickException(f"{url} answered {response.status}: {body!r}")
        return body

    return ask


def timed(ask: Callable[[bytes], bytes], data: bytes) -> float:
    """Seconds that one call takes."""
    start = time.perf_counter()
    ask(data)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
