"""What a worker counts, for Prometheus.

Where PROMETHEUS_MULTIPROC_DIR is set when this is imported, the numbers lie in files of that folder, one set a process,
from which `vinegrape serve` adds up all its workers. Elsewhere, `Metrics.registry` holds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from vinegrape_handler.contract import BATCHES_IN_PROGRESS, WORKERS_READY
from vinegrape_handler.errors import RequestError

# One image takes 5 to 20 ms; the ends are a picture that fails at once and a request of 32 photos.
_SECONDS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075,
    0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip
_IMAGES = (1, 2, 4, 8, 16, 32, 64)
_PROBABILITIES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)


class Metrics:
    """The numbers of one worker; what the self-check does is not among them."""

    def __init__(self, classes: Sequence[str]) -> None:
        """Begin at 0 for everything that can be known before it happens, so that the first event is an increase."""
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "vinegrape_requests",
            "Requests that a worker answered; error is empty where there was none",
            ("transport", "status", "error"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "vinegrape_request_seconds",
            "From a request's batch reaching the worker to the batch's answers",
            buckets=_SECONDS,
            registry=registry,
        )
        self.images = Counter(
            "vinegrape_images",
            "Images asked about, alone or among instances; error is empty where there was none",
            ("error",),
            registry=registry,
        )
        self.decode_seconds = Histogram(
            "vinegrape_decode_seconds", "Decoding and resizing one image", buckets=_SECONDS, registry=registry
        )
        self.batch_size = Histogram(
            "vinegrape_batch_size", "Images in one call of the network", buckets=_IMAGES, registry=registry
        )
        self.inference_seconds = Histogram(
            "vinegrape_inference_seconds", "One call of the network", buckets=_SECONDS, registry=registry
        )
        self.predictions = Counter("vinegrape_predictions", "Images given this label", ("label",), registry=registry)
        self.confidence = Histogram(
            "vinegrape_confidence", "Probability of the label given", buckets=_PROBABILITIES, registry=registry
        )
        self.batches_in_progress = Gauge(*BATCHES_IN_PROGRESS, multiprocess_mode="livesum", registry=registry)
        self.workers_ready = Gauge(*WORKERS_READY, multiprocess_mode="livesum", registry=registry)
        for transport in ("rest", "grpc"):
            self.requests.labels(transport, 200, "")
            for error in RequestError.__subclasses__():
                self.requests.labels(transport, error.status, error.type)
        for kind in ("", *(error.type for error in RequestError.__subclasses__())):
            self.images.labels(kind)
        for label in classes:
            self.predictions.labels(label)

    def count_request(self, transport: str, status: int, body: dict[str, Any], seconds: float) -> None:
        """Count one request by its answer; it took as long as its batch."""
        self.requests.labels(transport, status, _error(body)).inc()
        self.request_seconds.observe(seconds)

    def count_image(self, body: dict[str, Any]) -> None:
        """Count one image by its answer, a prediction or an error."""
        error = _error(body)
        self.images.labels(error).inc()
        if not error:
            self.predictions.labels(body["label"]).inc()
            self.confidence.observe(body["probability"])


def _error(body: dict[str, Any]) -> str:
    kind: str = body["error"]["type"] if "error" in body else ""
    return kind
