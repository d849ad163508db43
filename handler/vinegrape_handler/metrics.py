"""The Prometheus metrics of one worker.

If PROMETHEUS_MULTIPROC_DIR is set when this module is imported, prometheus_client writes the values to files in that
folder, one set per process, and `vinegrape serve` adds up the files of all workers. Otherwise `Metrics.registry` holds
the values.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from vinegrape_handler.contract import (
    BATCH_FINISHED,
    BATCH_STARTED,
    BATCHES_IN_PROGRESS,
    HISTOGRAMS,
    PREDICTIONS,
    WORKERS_READY,
)
from vinegrape_handler.errors import WORKER_ERRORS, RequestError, SettingError
from vinegrape_handler.properties import measure
from vinegrape_handler.reference import CONFIDENCE, OOD_SCORE, Reference

# One image takes 5 to 20 ms. The smallest bucket is for an image that fails at once, the largest for a request of 32
# photos.
_SECONDS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075,
    0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10,
)  # fmt: skip
UNKNOWN = "unknown"
"""The label of images that the model does not know."""

_IMAGES = (1, 2, 4, 8, 16, 32, 64)
_PROBABILITIES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)

# prometheus_client writes the metrics of a process to one file of each of these kinds
_FILES = ("counter", "histogram", "gauge_livesum", "gauge_liveall")
_FILE_BYTES = 1 << 16


class Metrics:
    """Counters, histograms and gauges of one worker. Self-checks are not counted.

    Args:
        classes: names of the classes, which are the labels of the predictions.
        abstains: whether images can have no label; they are counted with the label `UNKNOWN`.
        reference: its properties are measured, and the buckets are its bins. None measures nothing of the images.
        version: of the model. Metrics of what the model answers have it as a label: two versions run side by side while
            one replaces the other.

    Raises:
        SettingError: there is not enough space for the files of the metrics.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        abstains: bool = False,
        reference: Reference | None = None,
        version: str = "",
    ) -> None:
        labels = (*classes, UNKNOWN) if abstains else classes
        edges = {name: each.edges for name, each in reference.values.items()} if reference else {}
        _reserve_files(labels, sum(map(len, edges.values())))
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "vinegrape_requests",
            "Requests that workers responded to, by transport, status and error type (empty: no error)",
            ("transport", "status", "error"),
            registry=registry,
        )
        self.request_seconds = Histogram(
            "vinegrape_request_seconds",
            "Seconds from the arrival of a request's batch at the worker to its responses",
            buckets=_SECONDS,
            registry=registry,
        )
        self.images = Counter(
            "vinegrape_images",
            "Images in requests, alone or as instances, by error type (empty: no error)",
            ("error",),
            registry=registry,
        )
        self.decode_seconds = Histogram(
            "vinegrape_decode_seconds", "Seconds to decode and resize one image", buckets=_SECONDS, registry=registry
        )
        self.batch_size = Histogram(
            "vinegrape_batch_size", "Images per call of the network", buckets=_IMAGES, registry=registry
        )
        self.inference_seconds = Histogram(
            "vinegrape_inference_seconds", "Seconds per call of the network", buckets=_SECONDS, registry=registry
        )
        self._version = version
        self.predictions = Counter(*PREDICTIONS, ("label", "version"), registry=registry)
        buckets = sorted({*_PROBABILITIES, *edges.pop(CONFIDENCE, ())})
        confidence = Histogram(*HISTOGRAMS[CONFIDENCE], ("version",), buckets=buckets, registry=registry)
        self.confidence = confidence.labels(version)
        self._properties = {
            name: Histogram(*HISTOGRAMS[name], ("version",), buckets=edges[name], registry=registry).labels(version)
            for name in HISTOGRAMS
            if name in edges
        }
        self.batches_in_progress = Gauge(*BATCHES_IN_PROGRESS, multiprocess_mode="livesum", registry=registry)
        self.workers_ready = Gauge(*WORKERS_READY, multiprocess_mode="livesum", registry=registry)
        self.batch_started = Gauge(*BATCH_STARTED, multiprocess_mode="liveall", registry=registry)
        self.batch_finished = Gauge(*BATCH_FINISHED, multiprocess_mode="liveall", registry=registry)
        self._create_series(labels)

    @contextlib.contextmanager
    def time_batch(self) -> Iterator[None]:
        """Record that a batch is in progress while the block runs, when it started, and when it was finished."""
        self.batch_started.set(time.monotonic())
        self.batches_in_progress.inc()
        try:
            yield
        finally:
            self.batches_in_progress.dec()
            self.batch_started.set(0)
            self.batch_finished.set(time.monotonic())

    def count_request(self, transport: str, error: RequestError | None, seconds: float) -> None:
        """Count one request.

        Args:
            transport: "rest" or "grpc".
            error: the error that the request as a whole got, if any.
            seconds: processing time of the request's batch.
        """
        status, kind = (error.status, error.type) if error else (200, "")
        self.requests.labels(transport, status, kind).inc()
        self.request_seconds.observe(seconds)

    def count_prediction(self, label: str | None, probability: float) -> None:
        """Count one image that was classified, with its label, if it has one, and the highest probability."""
        self.images.labels("").inc()
        self.predictions.labels(label or UNKNOWN, self._version).inc()
        self.confidence.observe(probability)

    def count_properties(self, images: NDArray[np.uint8], ood_scores: NDArray[np.float32] | None) -> None:
        """Count the properties of images that were classified, if the model has a reference.

        Args:
            images: uint8 [N, S, S, 3].
            ood_scores: float32 [N]; None if the network computes none.
        """
        if not self._properties:
            return
        values = {**measure(images), OOD_SCORE: np.zeros(0) if ood_scores is None else ood_scores}
        for name, histogram in self._properties.items():
            for value in values[name].tolist():
                histogram.observe(value)

    def count_failed_image(self, error: RequestError) -> None:
        """Count one image that could not be classified."""
        self.images.labels(error.type).inc()

    def _create_series(self, labels: Sequence[str]) -> None:
        """Create every known label combination with value 0, so that Prometheus sees the first event as an increase."""
        for transport in ("rest", "grpc"):
            self.requests.labels(transport, 200, "")
            for error in WORKER_ERRORS:
                self.requests.labels(transport, error.status, error.type)
        for kind in ("", *(error.type for error in WORKER_ERRORS)):
            self.images.labels(kind)
        for label in labels:
            self.predictions.labels(label, self._version)


def _reserve_files(labels: Sequence[str], buckets: int) -> None:
    """Create this process's files with all their disk space, for so many buckets in addition to those of every model.

    prometheus_client creates files without disk space and maps them into memory. On a full disk the first write would
    end the process by the signal SIGBUS.
    """
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not folder:
        return
    size = _FILE_BYTES + sum(256 + 6 * len(label) for label in labels)  # JSON needs up to 6 bytes per character
    size += 512 * buckets
    for kind in _FILES:
        path = Path(folder, f"{kind}_{os.getpid()}.db")
        try:
            with path.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise SettingError(
                f"Cannot reserve {size} bytes for the metrics in {folder}: {error.strerror}. Free some space, or set "
                "TMPDIR to another folder."
            ) from error
