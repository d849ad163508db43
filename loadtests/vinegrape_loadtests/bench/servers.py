"""The servers that are measured. Each runs on free ports of this machine and stops at the end of its block."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import click

from vinegrape_loadtests.bench.results import EDGE, PLAIN
from vinegrape_loadtests.client import PREDICTIONS_PATH, post
from vinegrape_loadtests.local.server import find_ports, free_port, running, serving
from vinegrape_server.settings import LOOPBACK
from vinegrape_server.torchserve.java import find_java

_START_TIMEOUT_S = 180
_LOG_TAIL = 4000  # characters
_ENTRY = "vinegrape_entry.py"

# TorchServe's image_classifier imports captum for explanations, which the benchmark does not use. The real captum needs
# an old NumPy, so this module takes its place.
_CAPTUM = "class IntegratedGradients:\n    def __init__(self, model):\n        pass\n"


@dataclass(frozen=True)
class BenchServer:
    """A running server.

    Attributes:
        name: shown in tables.
        pid: process id of the process that started all others.
        url: URL to post images to.
        grpc: host and port of gRPC; empty if there is none.
        operations_port: port of the Prometheus metrics; 0 if there are none.
        behind_edge: URL of TorchServe itself, if the server has an edge; else empty.
        opaque: whether it fails on an image with transparency.
    """

    name: str
    pid: int
    url: str
    grpc: str = ""
    operations_port: int = 0
    behind_edge: str = ""
    opaque: bool = False


@contextlib.contextmanager
def vinegrape(archive: Path, folder: Path, edge: bool = False) -> Iterator[BenchServer]:
    """Run `vinegrape serve` with its default settings, and an entry file that counts the handler's CPU time.

    Args:
        archive: the archive to serve.
        folder: where to write the archive with the other entry file.
        edge: whether to start the edge.
    """
    timed = folder / "timed.mar"
    _replace_entry(archive, timed)
    # The edge's queue is as long as that of the server without an edge: else the edge refuses some of 64 connections
    options = ("--edge", "--queue-size", "100", "--queue-wait-ms", "0") if edge else ()
    with serving("--archive", str(timed), *options, stdout=subprocess.DEVNULL) as server:
        yield BenchServer(
            EDGE if edge else PLAIN,
            server.process.pid,
            server.predictions_url,
            server.grpc_address,
            server.ports["operations_port"],
            f"http://{LOOPBACK}:{server.ports['rest_port']}{PREDICTIONS_PATH}" if edge else "",
        )


def edge_is_installed() -> bool:
    """Return whether HAProxy, which the edge needs, is installed."""
    return shutil.which("haproxy") is not None


@contextlib.contextmanager
def fastapi(name: str, workers: int, folder: Path, image: bytes) -> Iterator[BenchServer]:
    """Run a FastAPI app with uvicorn.

    Args:
        name: name of the server in tables, and of its module in `vinegrape_loadtests.bench.peers`.
        workers: number of uvicorn processes.
        folder: an unpacked archive, with further files that the app needs.
        image: the app has started when it responds to this image with success.
    """
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", f"vinegrape_loadtests.bench.peers.{name}:app", "--port", str(port),
        "--workers", str(workers), "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    environment = {**os.environ, "BENCH_FOLDER": str(folder), "OMP_NUM_THREADS": "1"}
    with _logged(command, environment, Path.cwd()) as process:
        url = f"http://{LOOPBACK}:{port}/predict"
        _wait_for_response(process, name, url, image)
        yield BenchServer(name, process.pid, url)


@contextlib.contextmanager
def torchserve_stock(folder: Path, torchscript: Path, image: bytes) -> Iterator[BenchServer]:
    """Run TorchServe as its documentation starts it, with its own image_classifier.

    Args:
        folder: a new folder for its files.
        torchscript: file of the traced network.
        image: TorchServe has started when it responds to this image with success. Transparency would make it fail.
    """
    (folder / "extra" / "captum").mkdir(parents=True)
    (folder / "extra" / "captum" / "__init__.py").touch()
    (folder / "extra" / "captum" / "attr.py").write_text(_CAPTUM)
    store = folder / "store"
    store.mkdir()
    archiver = [
        _program("torch-model-archiver"), "--model-name", "stock", "--version", "1.0",
        "--serialized-file", str(torchscript), "--handler", "image_classifier",
        "--extra-files", str(folder / "extra"), "--export-path", str(store),
    ]  # fmt: skip
    subprocess.run(archiver, check=True)  # noqa: S603
    rest, management, metrics, grpc, grpc_management = find_ports(5)
    (folder / "config.properties").write_text(
        f"inference_address=http://{LOOPBACK}:{rest}\n"
        f"management_address=http://{LOOPBACK}:{management}\n"
        f"metrics_address=http://{LOOPBACK}:{metrics}\n"
        f"grpc_inference_port={grpc}\ngrpc_management_port={grpc_management}\n"
        "disable_token_authorization=true\n"
    )
    command = [
        _program("torchserve"), "--start", "--foreground", "--ncs", "--model-store", str(store),
        "--models", "stock=stock.mar", "--ts-config", str(folder / "config.properties"),
    ]  # fmt: skip
    java_home = find_java().resolve().parents[1]
    environment = {**os.environ, "JAVA_HOME": str(java_home), "TMPDIR": str(folder), "TEMP": str(folder)}
    with _logged(command, environment, folder) as process:
        url = f"http://{LOOPBACK}:{rest}/predictions/stock"
        _wait_for_response(process, "torchserve_stock", url, image)
        yield BenchServer("torchserve_stock", process.pid, url, opaque=True)


def _replace_entry(archive: Path, timed: Path) -> None:
    entry = Path(__file__).with_name("timed_entry.py").read_bytes()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(timed, "w") as copy:
        for item in source.infolist():
            copy.writestr(item, entry if item.filename == _ENTRY else source.read(item))


@contextlib.contextmanager
def _logged(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command with its output in a file; after a ClickException, print the end of the output."""
    with tempfile.TemporaryFile() as log:
        try:
            with running(command, env=environment, cwd=folder, stdout=log, stderr=log) as process:
                yield process
        except click.ClickException:
            log.seek(0)
            click.echo(log.read().decode(errors="replace")[-_LOG_TAIL:], err=True)
            raise


def _wait_for_response(process: subprocess.Popen[bytes], name: str, url: str, image: bytes) -> None:
    """Return once the server responds to the image with success.

    Raises:
        ClickException: it exits, returns an error other than 404 or 503, or does not respond in time.
    """
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            status = post(url, image).status
            if status == HTTPStatus.OK:
                return
            if status not in (HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE):
                break
        time.sleep(0.1)
    raise click.ClickException(f"{name} did not start; the end of its output is above.")


def _program(name: str) -> str:
    """Path of a program of this Python environment."""
    return str(Path(sys.executable).with_name(name))
