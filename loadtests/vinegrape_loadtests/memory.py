"""What serving takes of memory, while many ask at once for what costs most: what a container's limit must hold.

Starts `vinegrape serve` itself, with this environment; as k8s/base runs it:

    VINEGRAPE_WORKERS=2 VINEGRAPE_MAX_IMAGE_BYTES=10000000 \\
    JAVA_TOOL_OPTIONS='-XX:ActiveProcessorCount=2 -Xmx1024m -XX:MaxDirectMemorySize=512m' \\
    .venv-serve/bin/python -m vinegrape_loadtests.memory
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import http.client
import io
import json
import os
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import click
import psutil
from PIL import Image

from vinegrape_handler.settings import WorkerSettings
from vinegrape_loadtests.local.processes import pss_mib
from vinegrape_loadtests.local.server import serving
from vinegrape_server.settings import ServeSettings

PATH = "/predictions/vinegrape"
SAMPLE_S = 0.05
ANSWER_TIMEOUT_S = 60
COLUMNS = ("Java", "largest worker", "serve", "all")
COLUMN_OF = {"Java": "Java", "worker": "largest worker", "supervisor": "serve"}


@click.command()
@click.option("--connections", type=click.IntRange(1, 1000), default=16, show_default=True)
@click.option("--seconds", type=click.IntRange(1, 600), default=10, show_default=True, help="For each request.")
@click.option("--image", type=click.Path(path_type=Path), default="docs/leaf.png", show_default=True)
def main(connections: int, seconds: int, image: Path) -> None:
    """Ask for one thing after the other, and print the most memory meanwhile: MiB, a shared page by its share.

    Exit code 1 if any was not answered: then it was too much, and its peak says nothing.
    """
    settings = ServeSettings(worker=WorkerSettings.from_environment())
    requests = draw_requests(image.read_bytes(), settings)
    with serving(stdout=subprocess.DEVNULL) as server:
        refused = []
        click.echo(f"{'':30}{''.join(f'{name:>16}' for name in COLUMNS)}   answers")
        for name, body in {"started": b"", **requests}.items():
            with Peak(server.process) as peak:
                answers = ask(server.ports["rest_port"], body, connections, seconds) if body else Counter()
            counts = "  ".join(f"{answer}: {count}" for answer, count in answers.items())
            click.echo(f"{name:30}{''.join(f'{peak.mib[column]:16.0f}' for column in COLUMNS)}   {counts}")
            refused += [name] if answers.keys() - {"200"} else []
    if refused:
        raise click.ClickException(f"Not every answer was 200: {', '.join(refused)}.")


def draw_requests(image: bytes, settings: ServeSettings) -> dict[str, bytes]:
    """Bodies by name, from what is usual to the most that the settings let in."""
    side = int((settings.worker.max_image_bytes / 3) ** 0.5) - 10
    largest = _encode(Image.frombytes("RGB", (side, side), os.urandom(side * side * 3)), "BMP")
    width = settings.worker.max_image_pixels // 5000
    return {
        "the image": image,
        "photo, 12 megapixels": _encode(Image.effect_noise((500, 375), 40).resize((4000, 3000)).convert("RGB"), "JPEG"),
        "most pixels, RGBA": _encode(Image.new("RGBA", (width, 5000)), "PNG"),
        "most pixels, 16 bits": _encode(Image.new("I;16", (width, 5000)), "PNG"),
        "most bytes": largest,
        "most instances": _instances(image, settings.worker.max_instances),
        "most bytes, as instances": _instances(largest, 1),
    }


def ask(port: int, body: bytes, connections: int, seconds: int) -> Counter[str]:
    """How often each status came, or each way in which none did."""
    end, answers = time.monotonic() + seconds, Counter[str]()

    def keep_asking(_: int) -> None:
        while time.monotonic() < end:
            answers[answer(port, body)] += 1

    with concurrent.futures.ThreadPoolExecutor(connections) as pool:
        list(pool.map(keep_asking, range(connections)))
    return answers


def answer(port: int, body: bytes) -> str:
    """The status of one request on a connection of its own, or the error that it ended in."""
    kind = "application/json" if body.startswith(b"{") else "application/octet-stream"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_TIMEOUT_S)
    with contextlib.closing(connection):
        try:
            connection.request("POST", PATH, body, {"Content-Type": kind})
            return str(connection.getresponse().status)
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__


class Peak:
    """The most memory that the server's processes took while the block ran."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.mib = dict.fromkeys(COLUMNS, 0.0)
        self._pid = process.pid
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            for name, mib in self._sample().items():
                self.mib[name] = max(self.mib[name], mib)
            if self._end.wait(SAMPLE_S):
                return

    def _sample(self) -> dict[str, float]:
        now = dict.fromkeys(COLUMNS, 0.0)
        with contextlib.suppress(psutil.NoSuchProcess):
            for kind, mib in pss_mib(self._pid):
                now[COLUMN_OF[kind]] = max(now[COLUMN_OF[kind]], mib)
                now["all"] += mib
        return now


def _encode(image: Image.Image, format_: str) -> bytes:
    out = io.BytesIO()
    image.save(out, format_)
    return out.getvalue()


def _instances(image: bytes, number: int) -> bytes:
    return json.dumps({"instances": [{"b64": base64.b64encode(image).decode()}] * number}).encode()


if __name__ == "__main__":
    main()
