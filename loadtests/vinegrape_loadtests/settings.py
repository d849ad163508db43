"""What a load test must reach, and how it asks: every threshold and every default, in one place."""

from __future__ import annotations

import dataclasses
import math
from argparse import Namespace
from dataclasses import dataclass

from vinegrape_handler.errors import SettingError
from vinegrape_handler.fields import check_at_least, setting

# Defaults of Locust's own options --users and --run-time
USERS = 4
RUN_TIME_S = 10


@dataclass(frozen=True)
class LoadSettings:
    """Every field is an option of the locustfile, and a key of a file given to Locust's `--config`.

    The limits hold for `make loadtest`, whose machine computes the load as well as the answers and may have others
    on it: they find a server that is broken or slower by an order of magnitude. Set your own for a machine that you
    know.
    """

    grpc_host: str = setting("", "HOST:PORT of gRPC; empty: the host's name, port 7070")
    arrival_rate: float = setting(
        0.0, "requests a second that arrive whatever the answers (open loop); 0: each user asks when it is answered"
    )
    timeout_s: float = setting(10.0, "seconds after which a request that was sent has failed")
    max_requests: int = setting(100_000, "requests at which a run ends before its time, give or take three seconds'")
    p95_ms: float = setting(2000.0, "most milliseconds of 95 % of all requests")
    p99_ms: float = setting(5000.0, "most milliseconds of 99 % of all requests")
    max_failure_ratio: float = setting(0.0, "share of requests, 0 to 1, that may fail, answer wrong or not be sent")
    min_right_answers: int = setting(50, "right answers without which a run proves nothing")
    model_versions: int = setting(1, "versions of the model that may answer; 2 while one replaces another")
    tolerance: float = setting(
        0.0, "by which probabilities of the same picture may differ; 0 for int8 on CPU, 0.005 for fp16 on a GPU"
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise SettingError(f"{field.name} is {value}; it must be a finite number.")
        check_at_least(self, arrival_rate=0, max_requests=1, max_failure_ratio=0, min_right_answers=1)
        check_at_least(self, model_versions=1, tolerance=0)
        for name in ("timeout_s", "p95_ms", "p99_ms"):
            if getattr(self, name) <= 0:
                raise SettingError(f"{name} is {getattr(self, name)}; it must be more than 0.")
        if self.max_failure_ratio >= 1:
            raise SettingError(f"max_failure_ratio is {self.max_failure_ratio}; at 1 or more nothing could fail.")
        if self.p99_ms < self.p95_ms:
            raise SettingError(f"p99_ms is {self.p99_ms}, less than p95_ms, {self.p95_ms}; it cannot hold alone.")
        if self.p99_ms >= self.timeout_s * 1000:
            raise SettingError(
                f"p99_ms is {self.p99_ms} and timeout_s {self.timeout_s}: requests end before they are too slow. "
                "Raise timeout_s."
            )

    @classmethod
    def from_options(cls, options: Namespace) -> LoadSettings:
        """Read Locust's parsed options.

        Raises:
            SettingError: a value that cannot be.
        """
        return cls(**{field.name: getattr(options, field.name) for field in dataclasses.fields(cls)})
