"""A real `vinegrape serve` on free ports, and ways to ask it."""

import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
from prometheus_client.parser import text_string_to_metric_families

from vinegrape_loadtests.local.server import free_ports
from vinegrape_server.settings import ServeSettings

ROOT = Path(__file__).parents[2]
PROTOS, SERVICES = grpc.protos_and_services("clients/inference.proto")

PORTS = tuple(ServeSettings().ports)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def command(*arguments: str) -> list[str]:
    """The console command `vinegrape` of the environment that runs the tests."""
    return [str(Path(sys.executable).with_name("vinegrape")), *arguments]


@dataclass
class Live:
    """One running server."""

    process: subprocess.Popen[str]
    ports: dict[str, int]
    log: Path
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.ports['rest_port']}", timeout=60)

    def operations(self, path: str) -> httpx.Response:
        """What the operations port says."""
        return httpx.get(f"http://127.0.0.1:{self.ports['operations_port']}{path}", timeout=60)

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Every metric by its name and its labels' values, in the order of the labels' names."""
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.operations("/metrics").text)
            for sample in family.samples
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['rest_port']}/predictions/vinegrape"

    def post(self, content: bytes, **options) -> httpx.Response:
        return self.client.post("/predictions/vinegrape", content=content, **options)

    def call(self, content: bytes, key: str = "data") -> bytes:
        """The answer of the gRPC call Predictions."""
        with grpc.insecure_channel(f"127.0.0.1:{self.ports['grpc_port']}") as channel:
            stub = SERVICES.InferenceAPIsServiceStub(channel)
            request = PROTOS.PredictionsRequest(model_name="vinegrape", input={key: content})
            return stub.Predictions(request, timeout=60).prediction

    def at_once(self, ask, contents: list[bytes]) -> list:
        """`ask(content)` for each content, all at the same time; the results in their order."""
        with concurrent.futures.ThreadPoolExecutor(len(contents)) as pool:
            return list(pool.map(ask, contents))


def with_entry(archive: Path, folder: Path, code: str) -> Path:
    """A copy of an archive in a folder, whose handler is this code."""
    path = folder / "other.mar"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, code if name == "vinegrape_entry.py" else source.read(name))
    return path


@contextlib.contextmanager
def starting(archive: Path, log: Path, output: int | None = None, **settings) -> Iterator[Live]:
    """Start to serve an archive, until the block ends.

    Args:
        archive: to serve.
        log: where its words go.
        output: a file descriptor where they go instead.
        settings: as on the command line, with underscores.
    """
    settings = {**free_ports(), "workers": 1, **settings}
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VINEGRAPE_")}
    with log.open("w") as file:
        process = subprocess.Popen(
            command("serve", "--archive", str(archive), *options),
            stdout=file if output is None else output,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
    try:
        yield Live(process, {name: settings[name] for name in PORTS}, log)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


@contextlib.contextmanager
def serving(archive: Path, log: Path, **settings) -> Iterator[Live]:
    """The same, once the server says that it answers."""
    with starting(archive, log, **settings) as live:
        wait_for_banner(live.process, log)
        yield live


def wait_for_banner(process: subprocess.Popen[str], log: Path) -> None:
    """Return once the server says that it answers."""

    def said() -> bool:
        assert process.poll() is None, f"The server did not start:\n{log.read_text()}"
        return "Ctrl-C" in log.read_text()

    wait_until(said, seconds=120)


def wait_until(condition, seconds=60):
    """Return once a condition holds; the time is a bound, so that a test that fails also ends."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
