"""The interface between the supervisor (`vinegrape serve`) and the handler in an archive.

An archive contains its own copy of this package, so the handler can be older or newer than the supervisor. Before you
change a value here, decide how existing archives will be served.
"""

from __future__ import annotations

from typing import Any, NamedTuple

# A GET request to the prediction path with this header runs a self-check, if the header's value is the token that the
# supervisor passes to its workers in this environment variable. Self-checks are not counted in the metrics.
SELF_CHECK_HEADER = "x-vinegrape-self-check"
SELF_CHECK_VARIABLE = "VINEGRAPE_SELF_CHECK"

# A worker that cannot start logs this text, followed by the reason on the same line.
START_FAILED = "vinegrape worker cannot start: "


class GaugeName(NamedTuple):
    """Name and help text of a gauge that the supervisor reads."""

    name: str
    help: str


WORKERS_READY = GaugeName("vinegrape_workers_ready", "Running workers that have passed their self-check")
BATCHES_IN_PROGRESS = GaugeName("vinegrape_batches_in_progress", "Batches that workers are processing")


class SelfCheckAnswer(NamedTuple):
    """The response to a successful self-check.

    Attributes:
        worker: process ID of the worker.
        version: version of the model that the worker serves.
    """

    worker: int
    version: str

    def to_body(self, name: str) -> dict[str, Any]:
        """Build the response body for the model with this name."""
        return {"worker": self.worker, "model": {"name": name, "version": self.version}}

    @classmethod
    def from_body(cls, body: Any) -> SelfCheckAnswer:
        """Read a parsed response body.

        Raises:
            LookupError, TypeError, ValueError: the body is not the response to a self-check.
        """
        return cls(int(body["worker"]), str(body["model"]["version"]))
