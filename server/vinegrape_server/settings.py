"""The settings of `vinegrape serve`: default, meaning and limits of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vinegrape_handler.errors import SettingError
from vinegrape_handler.fields import check_at_least, setting
from vinegrape_handler.settings import MAX_BATCH_SIZE, WorkerSettings

LOOPBACK = "127.0.0.1"

# TorchServe's limit for a request is higher than our limit for an image: an image in base64 must fit, and our handler's
# error for a larger image has a message, while TorchServe's own 413 has no body. TorchServe keeps the size of a request
# in a Java int, which limits both.
_REQUEST_BYTES_PER_IMAGE_BYTE = 1.5
_MAX_IMAGE_BYTES = int(2**31 / _REQUEST_BYTES_PER_IMAGE_BYTE) - 1


@dataclass(frozen=True)
class ServeSettings:
    """The server's addresses, limits and batching. `worker` holds the settings of each worker.

    Raises:
        SettingError: a setting is out of its range, or two ports are the same.
    """

    archive: str = setting("model_store/vinegrape.mar", "model archive to serve")
    host: str = setting("127.0.0.1", "address of REST and gRPC (0.0.0.0: all addresses)")
    rest_port: int = setting(8080, "REST port (the variable PORT, as set by Cloud Run, also works)")
    grpc_port: int = setting(7070, "gRPC port")
    operations_host: str = setting("127.0.0.1", "address of the operations port (0.0.0.0: all addresses)")
    operations_port: int = setting(8083, "port of /livez, /readyz and /metrics")
    metrics_port: int = setting(8082, "port of TorchServe's own metrics, on 127.0.0.1")
    management_port: int = setting(8081, "REST port of TorchServe's management, on 127.0.0.1")
    grpc_management_port: int = setting(7071, "gRPC port of TorchServe's management, on 127.0.0.1")
    workers: int = setting(0, "worker processes (0: one per core, or one per GPU)")
    batch_size: int = setting(0, f"maximum requests in one batch, up to {MAX_BATCH_SIZE} (0: 1 on a CPU, 32 on a GPU)")
    max_batch_delay_ms: int = setting(1, "maximum milliseconds that a batch waits for more requests")
    queue_size: int = setting(100, "maximum requests in the queue; further requests get status 503")
    response_timeout_s: int = setting(120, "seconds after which a worker that does not respond is replaced")
    startup_timeout_s: int = setting(120, "seconds within which every worker must pass its self-check")
    drain_timeout_s: int = setting(20, "seconds that a stop waits for the requests in flight")
    worker: WorkerSettings = field(default_factory=WorkerSettings)

    def __post_init__(self) -> None:
        check_at_least(
            self,
            workers=0,
            batch_size=0,
            max_batch_delay_ms=1,  # TorchServe uses 100 ms for 0, without a warning
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
            if ":" in getattr(self, name):  # TorchServe splits an address at its first colon
                raise SettingError(
                    f"{name} is {getattr(self, name)!r}; it must be a name or an IPv4 address, such as 0.0.0.0."
                )
        used: dict[int, str] = {}
        for name, port in self.ports.items():
            check_port(name, port)
            if port in used:
                raise SettingError(f"{name} and {used[port]} are both {port}; set different ports.")
            used[port] = name

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> ServeSettings:
        """Create the settings from values by name, which include those of `WorkerSettings`.

        Raises:
            SettingError: a value is invalid, see `ServeSettings` and `WorkerSettings`.
        """
        worker_names = {f.name for f in dataclasses.fields(WorkerSettings)}
        worker = {name: value for name, value in values.items() if name in worker_names}
        server = {name: value for name, value in values.items() if name not in worker_names}
        return cls(**server, worker=WorkerSettings(**worker))

    @property
    def ports(self) -> dict[str, int]:
        """Every port that the server listens on, by the name of its setting."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name.endswith("_port")}

    @property
    def max_request_bytes(self) -> int:
        """TorchServe's limit for the body of one request, in bytes."""
        return int(_REQUEST_BYTES_PER_IMAGE_BYTE * self.worker.max_image_bytes)

    def host_of(self, port: str) -> str:
        """Return the address that a port listens on.

        Args:
            port: the name of the port's setting, such as "rest_port".
        """
        hosts = {"rest_port": self.host, "grpc_port": self.host, "operations_port": self.operations_host}
        return hosts.get(port, LOOPBACK)


def check_port(name: str, port: int) -> None:
    """Check that a port number is between 1 and 65535.

    Raises:
        SettingError: it is not.
    """
    if not 1 <= port <= 65535:
        raise SettingError(f"{name} is {port}; a port must be between 1 and 65535.")


def fields() -> dict[str, tuple[type, dataclasses.Field[Any]]]:
    """Return every setting by name, with its class and field: first the server's, then the worker's."""
    return {
        f.name: (settings, f)
        for settings in (ServeSettings, WorkerSettings)
        for f in dataclasses.fields(settings)
        if "meaning" in f.metadata
    }
