"""What the supervisor and the handler in an archive must agree on: a versioned interface.

An archive carries its own copy of this package, so `vinegrape serve` may supervise a handler that is older or newer
than itself. Change a value here only together with a plan for the archives that exist. Standard library only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# A GET on the prediction path with this header runs a self-check, if its value is the token that `vinegrape serve`
# gave its workers in this environment variable. A self-check is not counted in the metrics.
SELF_CHECK_HEADER = "x-vinegrape-self-check"
SELF_CHECK_VARIABLE = "VINEGRAPE_SELF_CHECK"

# A worker that cannot start logs this text, followed by the reason.
START_FAILED = "vinegrape worker cannot start: "


class GaugeName(NamedTuple):
    """Name and help text of a gauge that the supervisor reads."""

    name: str
    help: str


WORKERS_READY = GaugeName("vinegrape_workers_ready", "Workers that run and have answered their self-check")
BATCHES_IN_PROGRESS = GaugeName("vinegrape_batches_in_progress", "Batches that workers are at")


class SelfCheckAnswer(NamedTuple):
    """The response of a successful self-check.

    Attributes:
        worker: the worker's process id.
        version: the version of the model that it serves.
    """

    worker: int
    version: str

    def to_body(self, name: str) -> dict[str, Any]:
        """The response body of the model `name`."""
        return {"worker": self.worker, "model": {"name": name, "version": self.version}}

    @classmethod
    def from_body(cls, body: Any) -> SelfCheckAnswer:
        """Read a response body.

        Raises:
            LookupError, TypeError: the body is not that of a self-check.
        """
        return cls(int(body["worker"]), str(body["model"]["version"]))
