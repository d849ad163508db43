"""Start a real `vinegrape serve` on free ports, and send requests to it.

`vinegrape_loadtests.local.server` starts one too, but tests need more: the log in a file, no settings from the
environment, and a server that ends with pytest.
"""

import concurrent.futures
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import descendants, running
from vinegrape_loadtests.local.server import free_ports
from vinegrape_server.settings import ServeSettings

ROOT = Path(__file__).parents[2]
PORTS = tuple(ServeSettings(edge=True).ports)
OPTIONAL_PORTS = {"metrics_port": 0, "management_port": 0, "grpc_management_port": 0}
START_S = 120


def listens(address: str, port: int) -> bool:
    """Return whether a program accepts connections on this address and port."""
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((address, port)) == 0


def command(*arguments: str) -> list[str]:
    """The console command `vinegrape` of the environment that runs the tests."""
    return [str(Path(sys.executable).with_name("vinegrape")), *arguments]


def serve_command(archive: Path, **settings: Any) -> list[str]:
    """The command that serves an archive. Settings are command-line options, with underscores."""
    return command("serve", f"--archive={archive}", *(_option(*setting) for setting in settings.items()))


def _option(name: str, value: Any) -> str:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{option}" if value else f"--no-{option}"
    return f"--{option}={value}"


def clean_environment(**variables: str) -> dict[str, str]:
    """The environment without vinegrape's settings, plus these variables."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("VINEGRAPE_")}
    return {**inherited, **variables}


def run_command(arguments: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command that is expected to end by itself, in the environment of `clean_environment`."""
    return subprocess.run(arguments, capture_output=True, text=True, timeout=60, env=clean_environment(**variables))


@dataclass
class Live:
    """One running server.

    Attributes:
        process: the process of `vinegrape serve`.
        ports: port numbers by the names of their settings, without optional ports that it does not open.
        log: the file with its output.
        edge: whether clients connect to the edge.
        client: sends requests to the port for REST.
    """

    process: subprocess.Popen[str]
    ports: dict[str, int]
    log: Path
    edge: bool = False
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.rest_port}", timeout=60)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.rest_port}/predictions/vinegrape"

    @property
    def rest_port(self) -> int:
        """The port that clients use for REST."""
        return self.ports["edge_port" if self.edge else "rest_port"]

    @property
    def grpc_port(self) -> int:
        """The port that clients use for gRPC."""
        return self.ports["edge_port" if self.edge else "grpc_port"]

    def post(self, content: bytes, **options: Any) -> httpx.Response:
        return self.client.post("/predictions/vinegrape", content=content, **options)

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def call(self, content: bytes, key: str = "data") -> bytes:
        """The JSON that the gRPC call Predictions gets: the prediction, or the error in the status's details."""
        import grpc

        with self.channel(key) as predict:
            try:
                return predict(content)
            except grpc.RpcError as error:
                details: str = error.details()
                return details.encode()

    @contextlib.contextmanager
    def channel(self, key: str = "data") -> Iterator[Callable[[bytes], bytes]]:
        """A gRPC channel: a function that calls Predictions and returns its prediction."""
        import grpc

        from vinegrape_client.inference_pb2 import PredictionsRequest
        from vinegrape_client.inference_pb2_grpc import InferenceAPIsServiceStub

        with grpc.insecure_channel(self.grpc_address) as channel:
            stub = InferenceAPIsServiceStub(channel)

            def predict(content: bytes) -> bytes:
                request = PredictionsRequest(model_name="vinegrape", input={key: content})
                prediction: bytes = stub.Predictions(request, timeout=60).prediction
                return prediction

            yield predict

    def at_once(self, send: Callable[[Any], Any], values: list[Any]) -> list[Any]:
        """Call `send(value)` for all values at the same time; the results have the order of the values."""
        with concurrent.futures.ThreadPoolExecutor(len(values)) as pool:
            return list(pool.map(send, values))

    def operations(self, path: str) -> httpx.Response:
        """GET a path of the operations port."""
        return httpx.get(f"http://127.0.0.1:{self.ports['operations_port']}{path}", timeout=60)

    def metrics(self) -> dict[tuple[str, ...], float]:
        """Every metric, by its name and the values of its labels in the order of the labels' names."""
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(self.operations("/metrics").text)
            for sample in family.samples
        }

    def received(self) -> float:
        """The number of requests that TorchServe has received. It counts each one before it enters the queue."""
        return self.metrics()[("ts_inference_requests_total",)]

    def is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.operations("/readyz").status_code == 200
        return False

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            assert self.process.poll() is None, f"The server did not start:\n{self.log.read_text()}"
            return self.is_ready()

        wait_until(is_ready, seconds=START_S)
        descendants(self.process)  # `running` ends them later, even if the test kills the server


@contextlib.contextmanager
def starting(
    archive: Path,
    log: Path,
    output: int | None = None,
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
    **settings: Any,
) -> Iterator[Live]:
    """Start a server, and end it with the block, without waiting for its requests.

    Args:
        archive: the archive to serve.
        log: the file for its output.
        output: a file descriptor for its output instead of the file.
        environment: additional variables.
        prefix: a command that runs the server as its own process.
        settings: command-line options, with underscores; by default free ports, no optional ports, and one worker.
    """
    settings = {**free_ports(), **OPTIONAL_PORTS, "workers": 1, **settings}
    with (
        log.open("w") as file,
        running(
            [*prefix, *serve_command(archive, **settings)],
            stdout=file if output is None else output,
            stderr=subprocess.STDOUT,
            env=clean_environment(**(environment or {})),
        ) as process,
    ):
        ports = {name: settings[name] for name in PORTS if settings.get(name)}
        live = Live(process, ports, log, bool(settings.get("edge")))
        with live.client:
            yield live


@contextlib.contextmanager
def serving(archive: Path, log: Path, **settings: Any) -> Iterator[Live]:
    """Start a server as `starting` does, and wait until it is ready."""
    with starting(archive, log, **settings) as live:
        live.wait_until_ready()
        yield live


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Return once a condition holds; fail after this many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"The condition did not hold within {seconds} s"
        time.sleep(0.05)
