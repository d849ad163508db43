"""The metrics of feedback."""

import sqlite3
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry

from vinegrape_server.feedback.metrics import FeedbackMetrics
from vinegrape_server.feedback.request import Feedback
from vinegrape_server.feedback.store import FeedbackStore


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path, 10, 7) as store:
        yield store


@pytest.fixture
def registry(store) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(FeedbackMetrics(store, SimpleNamespace(version="v2")))
    return registry


def test_the_served_version_has_counts_from_the_start_and_no_accuracy(registry):
    labels = {"version": "v2", "outcome": "correct"}
    assert registry.get_sample_value("vinegrape_feedback_answers", labels) == 0
    assert registry.get_sample_value("vinegrape_feedback_accuracy", {"version": "v2"}) is None


def test_accuracy_and_calibration_have_the_version_of_the_model(registry, store):
    store.add([Feedback("v1", "Ak", 0.75, True, "Ak"), Feedback("v1", "Ak", 0.75, True, "Nazli")])
    assert registry.get_sample_value("vinegrape_feedback_accuracy", {"version": "v1"}) == 0.5
    assert registry.get_sample_value("vinegrape_feedback_calibration_error", {"version": "v1"}) == 0.25
    labels = {"version": "v1", "outcome": "wrong"}
    assert registry.get_sample_value("vinegrape_feedback_answers", labels) == 1


def test_a_database_that_cannot_be_read_does_not_break_the_other_metrics(registry, store, tmp_path):
    with sqlite3.connect(tmp_path / "feedback.sqlite3") as connection:
        connection.execute("DROP TABLE feedback")
    connection.close()
    assert list(registry.collect()) == []
