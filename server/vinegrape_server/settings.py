"""What `vinegrape serve` is told: an option wins over the environment, that over the file, that over the default."""

from __future__ import annotations

import dataclasses
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vinegrape_handler.errors import SettingError
from vinegrape_handler.fields import ENVIRONMENT_PREFIX, check_at_least, parse, read_environment, setting
from vinegrape_handler.settings import MAX_BATCH_SIZE, WorkerSettings

LOOPBACK = "127.0.0.1"

# TorchServe holds a request's size in a Java int, and the request in memory, several times over. So it is told little
# more than our own limit, whose error says more than its empty 413: enough for the largest image in base64.
_REQUEST_BYTES_AN_IMAGE_BYTE = 1.5
_MAX_IMAGE_BYTES = int(2**31 / _REQUEST_BYTES_AN_IMAGE_BYTE) - 1

_REST_PORT = f"{ENVIRONMENT_PREFIX}REST_PORT"


@dataclass(frozen=True)
class ServeSettings:
    """Where the server listens and how it spreads the work; how a worker computes is in `worker`."""

    archive: str = setting("model_store/vinegrape.mar", "the model archive to serve")
    host: str = setting("127.0.0.1", "address of REST and gRPC; 0.0.0.0: all")
    rest_port: int = setting(8080, "port of REST; as Cloud Run does, PORT can say it too")
    grpc_port: int = setting(7070, "port of gRPC")
    operations_host: str = setting("127.0.0.1", "address of the operations port; 0.0.0.0: all")
    operations_port: int = setting(8083, "port of /livez, /readyz and /metrics")
    metrics_port: int = setting(8082, "port of TorchServe's own metrics, on 127.0.0.1")
    management_port: int = setting(8081, "port of TorchServe's management, REST, on 127.0.0.1")
    grpc_management_port: int = setting(7071, "port of TorchServe's management, gRPC, on 127.0.0.1")
    workers: int = setting(0, "worker processes; 0: one a core, or one a GPU")
    batch_size: int = setting(
        0, f"requests that go to a worker together, at most {MAX_BATCH_SIZE}; 0: 1 on CPU, 32 on a GPU"
    )
    max_batch_delay_ms: int = setting(1, "milliseconds that a batch of more than one waits to fill")
    queue_size: int = setting(100, "requests that may wait before more are refused with 503")
    response_timeout_s: int = setting(120, "seconds after which a worker that does not answer is replaced")
    startup_timeout_s: int = setting(120, "seconds until all workers answer right, else serving fails")
    drain_timeout_s: int = setting(20, "seconds that a stop waits for the requests in flight")
    worker: WorkerSettings = field(default_factory=WorkerSettings)

    def __post_init__(self) -> None:
        check_at_least(
            self,
            workers=0,
            batch_size=0,
            max_batch_delay_ms=1,  # TorchServe takes 0 for 100 ms, in silence
            queue_size=1,
            response_timeout_s=1,
            startup_timeout_s=1,
            drain_timeout_s=0,
        )
        if self.batch_size > MAX_BATCH_SIZE:
            raise SettingError(f"batch_size is {self.batch_size}; it must be at most {MAX_BATCH_SIZE}.")
        if self.worker.max_image_bytes > _MAX_IMAGE_BYTES:
            raise SettingError(
                f"max_image_bytes is {self.worker.max_image_bytes}; TorchServe allows at most {_MAX_IMAGE_BYTES}."
            )
        for name in ("host", "operations_host"):
            if ":" in getattr(self, name):  # TorchServe splits its addresses at the first colon
                raise SettingError(
                    f"{name} is {getattr(self, name)!r}; it must be a name or an IPv4 address, such as 0.0.0.0."
                )
        self._check_ports()

    @property
    def ports(self) -> dict[str, int]:
        """Every port that is listened on, by the name of its setting."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name.endswith("_port")}

    @property
    def max_request_bytes(self) -> int:
        """Bytes of one request's body, whatever is in it."""
        return int(_REQUEST_BYTES_AN_IMAGE_BYTE * self.worker.max_image_bytes)

    def host_of(self, port: str) -> str:
        """The address that a port, given by its setting's name, is bound to."""
        hosts = {"rest_port": self.host, "grpc_port": self.host, "operations_port": self.operations_host}
        return hosts.get(port, LOOPBACK)

    def _check_ports(self) -> None:
        used: dict[int, str] = {}
        for name, port in self.ports.items():
            if not 1 <= port <= 65535:
                raise SettingError(f"{name} is {port}; a port is between 1 and 65535.")
            if port in used:
                raise SettingError(f"{name} and {used[port]} are both {port}; give each its own port.")
            used[port] = name

    @classmethod
    def load(
        cls,
        options: Mapping[str, Any],
        config: Path | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> ServeSettings:
        """Settle every setting.

        Args:
            options: what the command line gave, by setting; typed.
            config: a TOML file of settings, if any.
            environment: of which `VINEGRAPE_<SETTING>` is read, and `PORT` where none says the port of REST.

        Raises:
            SettingError: a setting that is unknown or cannot be.
        """
        file = _read_file(config) if config else {}
        if _REST_PORT not in environment and "PORT" in environment:
            parse(cls, "rest_port", environment["PORT"], "PORT")  # an error names the variable that is wrong
            environment = {**environment, _REST_PORT: environment["PORT"]}
        serve = _merge(cls, file, environment, options)
        worker = _merge(WorkerSettings, file, environment, options)
        return cls(**serve, worker=WorkerSettings(**worker))


def fields() -> dict[str, tuple[type, dataclasses.Field[Any]]]:
    """Every setting by name, with the class that holds it: the server's, then the worker's."""
    return {
        f.name: (settings, f)
        for settings in (ServeSettings, WorkerSettings)
        for f in dataclasses.fields(settings)
        if "meaning" in f.metadata
    }


def _read_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:  # ValueError: no TOML, or not even UTF-8
        raise SettingError(f"The settings file {path} cannot be read: {error}") from error
    unknown = values.keys() - fields().keys()
    if unknown:
        raise SettingError(
            f"{path} sets {', '.join(sorted(unknown))}, which nobody knows. Settings are: {', '.join(fields())}."
        )
    return {name: parse(fields()[name][0], name, str(value), f"{name} in {path}") for name, value in values.items()}


def _merge(
    settings: type, file: Mapping[str, Any], environment: Mapping[str, str], options: Mapping[str, Any]
) -> dict[str, Any]:
    own = {f.name for f in dataclasses.fields(settings)}
    merged = {**file, **read_environment(settings, environment), **options}
    return {name: value for name, value in merged.items() if name in own}
