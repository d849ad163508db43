"""Settings of a load test: every threshold and every default in one place."""

from __future__ import annotations

import dataclasses
import math
from argparse import Namespace
from dataclasses import dataclass
from urllib.parse import urlsplit

from vinegrape_handler.errors import SettingError
from vinegrape_handler.fields import check_at_least, setting
from vinegrape_server.settings import ServeSettings

# Defaults of Locust's own options --users and --run-time
USERS = 4
RUN_TIME_S = 10

API_KEY_VARIABLE = "VINEGRAPE_API_KEY"


@dataclass(frozen=True)
class LoadSettings:
    """Every field is an option of the locustfile, and a key of a file passed to Locust's `--config`.

    The default limits are for `vinegrape loadtest`, where Locust and the server share one machine, perhaps with other
    programs. They detect a server that fails or is slower by an order of magnitude. Set your own limits for a machine
    that you know.

    Raises:
        SettingError: a value is out of its range, or two values contradict each other.
    """

    grpc_host: str = setting("", "HOST:PORT of gRPC; empty: as --host, but 7070 instead of 8080 (no edge)")
    api_key: str = setting("", f"API key that every request carries; {API_KEY_VARIABLE} also sets it")
    ca_file: str = setting("", "PEM file of the authority that has signed the certificate; empty: the usual ones")
    arrival_rate: float = setting(
        0.0, "requests per second, sent independently of responses (open loop); 0: each user waits for its response"
    )
    timeout_s: float = setting(10.0, "seconds after which a sent request fails")
    max_requests: int = setting(100_000, "requests after which a run ends early, up to three seconds late")
    p95_ms: float = setting(2000.0, "limit for the 95th percentile of latency, in milliseconds")
    p99_ms: float = setting(5000.0, "limit for the 99th percentile of latency, in milliseconds")
    max_failure_ratio: float = setting(0.0, "share of requests, 0 to 1, that may fail, be wrong or stay unsent")
    max_refused_ratio: float = setting(0.0, "share of requests, 0 to 1, that the server may refuse with status 429")
    min_right_answers: int = setting(50, "minimum number of correct responses; a run with fewer proves nothing")
    model_versions: int = setting(1, "versions of the model that may respond; 2 during a rolling update")
    tolerance: float = setting(
        0.0, "allowed difference of probabilities for the same image; 0 for int8 on CPU, 0.005 for fp16 on a GPU"
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise SettingError(f"{field.name} is {value}; it must be a finite number.")
        check_at_least(self, arrival_rate=0, max_requests=1, max_failure_ratio=0, max_refused_ratio=0)
        check_at_least(self, min_right_answers=1, model_versions=1, tolerance=0)
        for name in ("timeout_s", "p95_ms", "p99_ms"):
            if getattr(self, name) <= 0:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be more than 0.")
        for name in ("max_failure_ratio", "max_refused_ratio"):
            if getattr(self, name) >= 1:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be less than 1.")
        if self.p99_ms < self.p95_ms:
            raise SettingError(f"p99_ms is {self.p99_ms}; it must be at least p95_ms, {self.p95_ms}.")
        if self.p99_ms >= self.timeout_s * 1000:
            raise SettingError(
                f"p99_ms is {self.p99_ms} and timeout_s is {self.timeout_s}: a request times out before it can exceed "
                "p99_ms. Raise timeout_s."
            )

    @classmethod
    def from_options(cls, options: Namespace) -> LoadSettings:
        """Read Locust's parsed options.

        Raises:
            SettingError: a value is not allowed.
        """
        return cls(**{field.name: getattr(options, field.name) for field in dataclasses.fields(cls)})


def grpc_address(host: str) -> str:
    """Return host and port of gRPC for a value of Locust's option --host.

    With the edge, REST and gRPC share one port. Without it, REST is on port 8080 by default and gRPC on 7070.
    """
    parts = urlsplit(host)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    defaults = ServeSettings()
    return f"{parts.hostname}:{defaults.grpc_port if port == defaults.rest_port else port}"


def check_host(host: str | None) -> None:
    """Check Locust's option --host; None and an empty text are allowed.

    Raises:
        SettingError: every request to this host would fail.
    """
    if host and (not host.startswith(("http://", "https://")) or host.endswith("/")):
        raise SettingError(f"The host is {host!r}; it must be of the form http://127.0.0.1:8080, without a path.")
