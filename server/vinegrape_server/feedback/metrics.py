"""The metrics of feedback."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from vinegrape_server.feedback.store import FeedbackStore, Summary
from vinegrape_server.plan import Served

_OUTCOMES = ("correct", "wrong", "unknown_other", "unknown_variety")


class FeedbackMetrics(Collector):
    """Accuracy and calibration by version of the model, from the feedback that is kept.

    Args:
        store: keeps the feedback.
        served: what is served; its version has its series from the start.
    """

    def __init__(self, store: FeedbackStore, served: Served) -> None:
        self._store = store
        self._served = served

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges; none if the database cannot be read."""
        try:
            summaries = {self._served.version: Summary(), **self._store.summaries()}
        except sqlite3.Error:
            return
        answers = GaugeMetricFamily(
            "vinegrape_feedback_answers",
            "Predictions with feedback: correct or wrong; or without a label, for an image that shows another thing "
            "(unknown_other) or one of the varieties (unknown_variety)",
            labels=["version", "outcome"],
        )
        accuracy = GaugeMetricFamily(
            "vinegrape_feedback_accuracy",
            "Share of correct predictions among those with a label and feedback",
            labels=["version"],
        )
        calibration = GaugeMetricFamily(
            "vinegrape_feedback_calibration_error",
            "Expected calibration error of the predictions with a label and feedback, 15 bins",
            labels=["version"],
        )
        for version, summary in summaries.items():
            for outcome in _OUTCOMES:
                answers.add_metric([version, outcome], getattr(summary, outcome))
            if summary.accuracy is not None and summary.calibration_error is not None:
                accuracy.add_metric([version], summary.accuracy)
                calibration.add_metric([version], summary.calibration_error)
        yield from (answers, accuracy, calibration)
