"""The settings of `vinegrape serve`: default, meaning and limits of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vinegrape_handler.errors import SettingError
from vinegrape_handler.fields import check_at_least, setting
from vinegrape_handler.settings import MAX_BATCH_SIZE, WorkerSettings

LOOPBACK = "127.0.0.1"
MIN_DRIFT_ANSWERS = 100
"""With fewer predictions, drift has no score."""

# TorchServe's limit for a request is higher than our limit for an image: an image in base64 must fit, and our handler's
# error for a larger image has a message, while TorchServe's own 413 has no body. TorchServe keeps the size of a request
# in a Java int, which limits both.
_REQUEST_BYTES_PER_IMAGE_BYTE = 1.5
_PRIVATE_PORTS = ("metrics_port", "management_port", "grpc_management_port")
_MAX_IMAGE_BYTES = int(2**31 / _REQUEST_BYTES_PER_IMAGE_BYTE) - 1


@dataclass(frozen=True)
class ServeSettings:
    """The server's addresses, limits and batching. `worker` holds the settings of each worker.

    Raises:
        SettingError: a setting is out of its range, or two ports are the same.
    """

    archive: str = setting("model_store/vinegrape.mar", "model archive to serve")
    edge: bool = setting(False, "start HAProxy in front: one port for REST and gRPC, limits, a queue, deadlines, keys")
    host: str = setting("127.0.0.1", "address of the edge, or of REST and gRPC without it (0.0.0.0: all addresses)")
    edge_port: int = setting(
        8000, "port of the edge for REST and gRPC (PORT of Cloud Run and AIP_HTTP_PORT of Vertex AI also set it)"
    )
    rest_port: int = setting(
        8080, "REST port of TorchServe; behind the edge on 127.0.0.1 (PORT sets it without the edge)"
    )
    grpc_port: int = setting(7070, "port of the gRPC gateway; behind the edge on 127.0.0.1")
    operations_host: str = setting("127.0.0.1", "address of the operations port (0.0.0.0: all addresses)")
    operations_port: int = setting(8083, "port of /livez, /readyz and /metrics")
    metrics_port: int = setting(0, "port of TorchServe's own metrics, on 127.0.0.1 (0: a private Unix socket)")
    management_port: int = setting(0, "port of TorchServe's management API, on 127.0.0.1 (0: a private Unix socket)")
    grpc_management_port: int = setting(0, "port of TorchServe's gRPC management, on 127.0.0.1 (0: any free port)")
    workers: int = setting(0, "worker processes (0: one per core, or one per GPU)")
    batch_size: int = setting(0, f"maximum requests in one batch, up to {MAX_BATCH_SIZE} (0: 1 on a CPU, 32 on a GPU)")
    max_batch_delay_ms: int = setting(1, "maximum milliseconds that a batch waits for more requests")
    queue_size: int = setting(
        0, "maximum requests that wait for a worker (0: 8 batches per worker behind the edge, else 100)"
    )
    queue_wait_ms: int = setting(
        100,
        "expected milliseconds in the edge's queue above which it refuses requests; 1 batch per worker may always "
        "wait (0: only queue_size counts)",
    )
    deadline_ms: int = setting(
        15_000, "milliseconds after which a request gets status 504; the header x-request-timeout-ms can shorten it"
    )
    response_timeout_s: int = setting(15, "seconds after which a worker that does not respond is replaced")
    startup_timeout_s: int = setting(120, "seconds within which every worker must pass its self-check")
    drain_timeout_s: int = setting(20, "seconds that a stop waits for the requests in flight")
    api_keys: str = setting("", "file of API keys for the edge, one `NAME KEY` per line (empty: no keys)")
    tls_certificate: str = setting("", "PEM file of the edge's certificate chain (empty: no TLS)")
    tls_key: str = setting("", "PEM file of the certificate's private key (empty: it is in tls_certificate)")
    cors_origins: str = setting("", "origins whose pages may read responses, separated by commas, or * (CORS)")
    trusted_proxies: str = setting("", "proxies whose X-Forwarded-For the edge believes, such as 10.0.0.0/8")
    max_connections: int = setting(2000, "maximum connections of all clients together")
    max_connections_per_client: int = setting(256, "maximum connections, and HTTP/2 requests, of one client address")
    max_requests_per_second: int = setting(0, "maximum requests per second of one client (0: no limit)")
    upload_timeout_s: int = setting(20, "seconds within which a request must arrive completely")
    keep_alive_timeout_s: int = setting(60, "seconds after which an idle connection is closed")
    drift_window: int = setting(500, "latest predictions that are compared with the model's reference, to notice drift")
    drift_window_hours: int = setting(24, "hours after which a prediction is no longer compared")
    feedback_folder: str = setting(
        "", "folder of the database of feedback (empty: a temporary folder; the feedback is lost when the server stops)"
    )
    feedback_rows: int = setting(100_000, "maximum pieces of feedback to keep; the oldest are removed first")
    feedback_days: int = setting(90, "days after which feedback is removed")
    log_format: Literal["text", "json"] = setting(
        "text", "format of the log on standard error; json has severities that Google Cloud reads"
    )
    access_log: bool = setting(True, "write one line of JSON per request to standard output")
    traces: bool = setting(
        False, "send OpenTelemetry traces of the edge's requests; the variables OTEL_* configure the receiver"
    )
    worker: WorkerSettings = field(default_factory=WorkerSettings)

    def __post_init__(self) -> None:
        check_at_least(
            self,
            workers=0,
            batch_size=0,
            max_batch_delay_ms=1,  # TorchServe uses 100 ms for 0, without a warning
            queue_size=0,
            queue_wait_ms=0,
            deadline_ms=1,
            response_timeout_s=1,
            startup_timeout_s=1,
            drain_timeout_s=0,
            max_connections=1,
            max_connections_per_client=1,
            max_requests_per_second=0,
            upload_timeout_s=1,
            keep_alive_timeout_s=1,
            drift_window=MIN_DRIFT_ANSWERS,
            drift_window_hours=1,
            feedback_rows=1,
            feedback_days=1,
        )
        if self.batch_size > MAX_BATCH_SIZE:
            raise SettingError(f"batch_size is {self.batch_size}; it must be at most {MAX_BATCH_SIZE}.")
        if self.traces and not self.edge:
            raise SettingError(
                "traces is true, but traces are made from the edge's log. Set edge too, or traces to false."
            )
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
            if port == 0 and name in _PRIVATE_PORTS:
                continue
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
        """Every port setting by its name. 0 is a port that TorchServe does not open."""
        names = (f.name for f in dataclasses.fields(self) if f.name.endswith("_port"))
        return {name: getattr(self, name) for name in names if self.edge or name != "edge_port"}

    @property
    def max_request_bytes(self) -> int:
        """TorchServe's limit for the body of one request, in bytes."""
        return int(_REQUEST_BYTES_PER_IMAGE_BYTE * self.worker.max_image_bytes)

    def host_of(self, port: str) -> str:
        """Return the address that a port listens on.

        Args:
            port: the name of the port's setting, such as "rest_port".
        """
        frontend = LOOPBACK if self.edge else self.host
        hosts = {
            "edge_port": self.host,
            "rest_port": frontend,
            "grpc_port": frontend,
            "operations_port": self.operations_host,
        }
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
