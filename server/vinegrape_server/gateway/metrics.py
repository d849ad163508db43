"""The counter of calls. Like the workers' metrics, it is a file that the operations port reads."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter

from vinegrape_handler.errors import REFUSALS, WORKER_ERRORS, DeadlineExceeded
from vinegrape_server.gateway.outcome import Outcome

CLIENT_CLOSED = (499, "client_closed")  # nginx's status of a request whose client has left


class Metrics:
    """Counts calls of `Predictions` and of the stream methods, each once, by status and error.

    A gauge would count as a worker: `operations.worker_metrics` takes each gauge file for one.
    """

    def __init__(self) -> None:
        counter = Counter(
            "vinegrape_responses",
            "Responses, by HTTP status and error type; gRPC calls by the status that REST would have",
            ["transport", "status", "error"],
            registry=CollectorRegistry(),
        )
        # Every series exists from the start, so that Prometheus sees the first event as an increase
        known = {(200, ""), CLIENT_CLOSED, *((error.status, error.type) for error in (*WORKER_ERRORS, *REFUSALS))}
        self._series = {(status, error): counter.labels("grpc", status, error) for status, error in sorted(known)}
        self._counter = counter

    def count(self, outcome: Outcome) -> None:
        """Count a call that has an outcome."""
        self._count(outcome.status, outcome.error)

    def count_cancelled(self, after_deadline: bool) -> None:
        """Count a call that its client, or its deadline, has ended."""
        self._count(*((DeadlineExceeded.status, DeadlineExceeded.type) if after_deadline else CLIENT_CLOSED))

    def _count(self, status: int, error: str) -> None:
        series = self._series.get((status, error)) or self._counter.labels("grpc", status, error)
        series.inc()
