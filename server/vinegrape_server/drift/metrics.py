"""The metrics of drift, from those of the workers."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from vinegrape_handler.contract import HISTOGRAMS, PREDICTIONS
from vinegrape_handler.reference import LABEL, Reference
from vinegrape_server.drift.statistic import measure_drift
from vinegrape_server.drift.window import Counts, Window
from vinegrape_server.settings import MIN_DRIFT_ANSWERS


class DriftMetrics(Collector):
    """Yields the metrics of the workers, and the drift of the recent answers from the model's reference.

    The window moves each time the metrics are collected.

    Args:
        workers: the metrics of all workers.
        reference: of the served model.
        window: keeps the recent answers.
        version: of the served model; only its answers count.
    """

    def __init__(self, workers: Collector, reference: Reference, window: Window, version: str = "") -> None:
        self._workers = workers
        self._reference = reference
        self._window = window
        self._version = version
        self._lock = threading.Lock()
        self._counts(workers.collect())  # the window starts now

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics. A property has a score as soon as there are enough answers."""
        metrics = list(self._workers.collect())
        yield from metrics
        counts = self._counts(metrics)
        scores = GaugeMetricFamily(
            "vinegrape_drift_score",
            f"How much the recent answers differ from the model's reference (population stability index), from "
            f"{MIN_DRIFT_ANSWERS} answers on",
            labels=["property"],
        )
        thresholds = GaugeMetricFamily(
            "vinegrape_drift_threshold", "The score above which a property has drifted", labels=["property"]
        )
        answers = GaugeMetricFamily(
            "vinegrape_drift_answers", "Recent answers that are compared with the reference", labels=["property"]
        )
        for name, drift in measure_drift(self._reference, counts).items():
            answers.add_metric([name], drift.answers)
            if drift.answers >= MIN_DRIFT_ANSWERS:
                scores.add_metric([name], drift.score)
                thresholds.add_metric([name], drift.threshold)
        yield from (scores, thresholds, answers)

    def _counts(self, metrics: Iterable[Metric]) -> Counts:
        """Return the counts of the window."""
        with self._lock:
            return self._window.counts(read_counts(self._reference, metrics, self._version))


def read_counts(reference: Reference, metrics: Iterable[Metric], version: str = "") -> Counts:
    """Read the number of answers in each bin of a reference from the metrics of the workers.

    Args:
        reference: of the model that the workers serve.
        metrics: of the workers. A missing one stands for no answers.
        version: of the model; the answers of others are left out.

    Returns:
        The counts by property; those of `LABEL` have the order of the reference's labels.
    """
    by_name = {metric.name: metric for metric in metrics}
    counts = {
        name: _bins(_samples(by_name.get(HISTOGRAMS[name].name), version), distribution.edges)
        for name, distribution in reference.values.items()
        if name in HISTOGRAMS
    }
    return {**counts, LABEL: _labels(_samples(by_name.get(PREDICTIONS.name), version), reference.labels)}


def _samples(metric: Metric | None, version: str) -> list[Sample]:
    # The handler of an older archive has no such label
    return [s for s in (metric.samples if metric else ()) if s.labels.get("version", version) == version]


def _bins(samples: Iterable[Sample], edges: tuple[float, ...]) -> list[float]:
    """Return the number of values in each bin; the histogram's own buckets are cumulative, and can be more."""
    up_to = {float(sample.labels["le"]): sample.value for sample in samples if sample.name.endswith("_bucket")}
    cumulative = [up_to.get(edge, 0) for edge in (*edges, float("inf"))]
    return [above - below for below, above in zip([0, *cumulative], cumulative, strict=False)]


def _labels(samples: Iterable[Sample], labels: Mapping[str, float]) -> list[float]:
    """Return the number of predictions of each label. Images without a label are left out."""
    by_label = {sample.labels["label"]: sample.value for sample in samples if sample.name.endswith("_total")}
    return [by_label.get(label, 0) for label in labels]
