"""The servers that are measured, each on free ports of this machine and ended with its block."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import click

from vinegrape_loadtests.local.server import free_ports, serving
from vinegrape_server.settings import LOOPBACK
from vinegrape_server.torchserve.java import find_java

_START_TIMEOUT_S = 180
_STOP_TIMEOUT_S = 30
_ENTRY = "vinegrape_entry.py"

# TorchServe's handler imports captum, for explanations that nobody asks for here; captum wants an old NumPy
_CAPTUM = "class IntegratedGradients:\n    def __init__(self, model):\n        pass\n"


@dataclass(frozen=True)
class Target:
    """A server that answers.

    Attributes:
        name: in tables.
        pid: of the process that started all others.
        url: to post an image to.
        grpc: host and port of gRPC; empty where there is none.
        operations_port: of the Prometheus metrics; 0 where there are none.
        opaque: whether it fails on an image with transparency.
    """

    name: str
    pid: int
    url: str
    grpc: str = ""
    operations_port: int = 0
    opaque: bool = False


@contextlib.contextmanager
def vinegrape(archive: Path, folder: Path) -> Iterator[Target]:
    """`vinegrape serve` as it is by default, with an entry file that counts its handler's time."""
    timed = folder / "timed.mar"
    _replace_entry(archive, timed)
    with serving("--archive", str(timed), stdout=subprocess.DEVNULL) as server:
        ports = server.ports
        url = f"http://{LOOPBACK}:{ports['rest_port']}/predictions/vinegrape"
        grpc = f"{LOOPBACK}:{ports['grpc_port']}"
        yield Target("vinegrape", server.process.pid, url, grpc, ports["operations_port"])


@contextlib.contextmanager
def fastapi(name: str, module: str, workers: int, folder: Path, image: bytes) -> Iterator[Target]:
    """A FastAPI app of `vinegrape_loadtests.bench.peers`, in as many uvicorn processes as there are workers.

    Args:
        name: in tables.
        module: of the app.
        workers: processes.
        folder: an unpacked archive, with what the app needs besides.
        image: that it must answer before it counts as started.
    """
    port = free_ports()["rest_port"]
    command = [
        sys.executable, "-m", "uvicorn", f"vinegrape_loadtests.bench.peers.{module}:app", "--port", str(port),
        "--workers", str(workers), "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    environment = {**os.environ, "BENCH_FOLDER": str(folder), "OMP_NUM_THREADS": "1"}
    with _running(command, environment, Path.cwd()) as process:
        url = f"http://{LOOPBACK}:{port}/predict"
        _wait_for_answer(process, name, url, image)
        yield Target(name, process.pid, url)


@contextlib.contextmanager
def stock(folder: Path, torchscript: Path, image: bytes) -> Iterator[Target]:
    """TorchServe as its documentation starts it, with its own image_classifier.

    Args:
        folder: to work in.
        torchscript: the network, traced.
        image: that it must answer before it counts as started; without transparency, on which it fails.
    """
    (folder / "captum").mkdir(parents=True)
    (folder / "captum" / "__init__.py").touch()
    (folder / "captum" / "attr.py").write_text(_CAPTUM)
    store = folder / "store"
    store.mkdir()
    _run(
        "torch-model-archiver", "--model-name", "stock", "--version", "1.0", "--serialized-file", str(torchscript),
        "--handler", "image_classifier", "--extra-files", str(_holding(folder / "captum")), "--export-path", str(store),
    )  # fmt: skip
    ports = free_ports()
    (folder / "config.properties").write_text(
        f"inference_address=http://{LOOPBACK}:{ports['rest_port']}\n"
        f"management_address=http://{LOOPBACK}:{ports['management_port']}\n"
        f"metrics_address=http://{LOOPBACK}:{ports['metrics_port']}\n"
        f"grpc_inference_port={ports['grpc_port']}\ngrpc_management_port={ports['grpc_management_port']}\n"
        "disable_token_authorization=true\n"
    )
    command = [
        _program("torchserve"), "--start", "--foreground", "--ncs", "--model-store", str(store),
        "--models", "stock=stock.mar", "--ts-config", str(folder / "config.properties"),
    ]  # fmt: skip
    java_home = find_java().resolve().parents[1]
    environment = {**os.environ, "JAVA_HOME": str(java_home), "TMPDIR": str(folder), "TEMP": str(folder)}
    with _running(command, environment, folder) as process:
        url = f"http://{LOOPBACK}:{ports['rest_port']}/predictions/stock"
        _wait_for_answer(process, "TorchServe's image_classifier", url, image)
        yield Target("stock", process.pid, url, opaque=True)


def post(url: str, image: bytes) -> bytes:
    """Ask once, and wait for the answer.

    Raises:
        OSError: no answer, or one that is no success.
    """
    request = urllib.request.Request(url, image, {"Content-Type": "application/octet-stream"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        body: bytes = answer.read()
    return body


def _replace_entry(archive: Path, timed: Path) -> None:
    entry = Path(__file__).with_name("timed_entry.py").read_bytes()
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(timed, "w") as target:
        for item in source.infolist():
            target.writestr(item, entry if item.filename == _ENTRY else source.read(item))


def _holding(package: Path) -> Path:
    """A folder that holds a package and nothing else: the archiver copies the content of what it is given."""
    holder = package.parent / "extra"
    holder.mkdir()
    shutil.copytree(package, holder / package.name)
    return holder


@contextlib.contextmanager
def _running(command: list[str], environment: dict[str, str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(  # noqa: S603
            command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process
        except click.ClickException:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-4000:])
            raise
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_TIMEOUT_S)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _wait_for_answer(process: subprocess.Popen[bytes], name: str, url: str, image: bytes) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            post(url, image)
        except urllib.error.HTTPError as error:
            if error.code not in (HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE):
                break
        except OSError:
            pass
        else:
            return
        time.sleep(0.1)
    raise click.ClickException(f"{name} did not start; the end of what it said stands above.")


def _run(name: str, *arguments: str) -> None:
    subprocess.run([_program(name), *arguments], check=True)  # noqa: S603


def _program(name: str) -> str:
    """A program of this environment."""
    return str(Path(sys.executable).with_name(name))
