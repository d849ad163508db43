"""A real `vinegrape serve` on free ports, and ways to ask it."""

import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx

ROOT = Path(__file__).parents[2]
PROTOS, SERVICES = grpc.protos_and_services("clients/inference.proto")

PORTS = ("rest_port", "grpc_port", "metrics_port", "management_port", "grpc_management_port")


def free_ports() -> dict[str, int]:
    """A port that nobody listens on for every port that a server needs."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in PORTS]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return {name: each.getsockname()[1] for name, each in zip(PORTS, sockets, strict=True)}


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


@contextlib.contextmanager
def serving(archive: Path, log: Path, **settings) -> Iterator[Live]:
    """Serve an archive until the block ends; settings as on the command line, with underscores."""
    settings = {**free_ports(), "workers": 1, **settings}
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VINEGRAPE_")}
    with log.open("w") as output:
        process = subprocess.Popen(
            command("serve", "--archive", str(archive), *options),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
    try:
        wait_for_banner(process, log)
        yield Live(process, {name: settings[name] for name in PORTS}, log)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def wait_for_banner(process: subprocess.Popen[str], log: Path) -> None:
    """Return once the server says that it answers."""
    deadline = time.monotonic() + 120
    while "Ctrl-C" not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"The server did not start:\n{log.read_text()}")
        time.sleep(0.05)
