"""The drift of a worker's metrics, from Prometheus histograms."""

import numpy as np
import pytest

from tests.support.tiny_archive import BLACK, GREEN, RED, RED_REFERENCE, SIDE
from vinegrape_handler.metrics import Metrics
from vinegrape_handler.reference import Distribution, Reference
from vinegrape_server.drift.metrics import DriftMetrics, read_counts
from vinegrape_server.drift.window import Window

CLASSES = tuple(RED_REFERENCE.labels)


def count(metrics: Metrics, colour: tuple[int, int, int], label: str | None, number: int = 1) -> None:
    images = np.full((number, SIDE, SIDE, 3), colour, np.uint8)
    metrics.count_properties(images, None)
    for _ in range(number):
        metrics.count_prediction(label, 0.75)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CLASSES, abstains=True, reference=RED_REFERENCE)


def samples(drift: DriftMetrics) -> dict[tuple[str, str], float]:
    return {
        (metric.name, sample.labels["property"]): sample.value
        for metric in drift.collect()
        for sample in metric.samples
        if "property" in sample.labels
    }


def test_the_bins_are_those_of_the_reference(metrics):
    count(metrics, BLACK, "Dimnit", 2)
    count(metrics, RED, "Ak", 3)
    count(metrics, (255, 255, 255), "Nazli", 4)
    counts = read_counts(RED_REFERENCE, metrics.registry.collect())
    assert counts == {"confidence": [0, 9, 0], "brightness": [2, 3, 4], "label": [3, 0, 0, 2, 4]}


def test_images_without_a_label_are_not_compared_by_label(metrics):
    count(metrics, RED, None)
    assert read_counts(RED_REFERENCE, metrics.registry.collect())["label"] == [0, 0, 0, 0, 0]


def test_metrics_that_do_not_exist_yet_are_no_answers():
    assert read_counts(RED_REFERENCE, []) == {"confidence": [0] * 3, "brightness": [0] * 3, "label": [0] * 5}


def test_a_property_that_this_version_does_not_know_is_left_out():
    values = {**RED_REFERENCE.values, "smell": Distribution((1.0,), (0.5, 0.5))}
    reference = Reference(10, RED_REFERENCE.labels, values)
    assert set(read_counts(reference, [])) == {"confidence", "brightness", "label"}


def test_ood_scores_are_counted():
    reference = Reference(10, RED_REFERENCE.labels, {"ood_score": Distribution((-1.0, 1.0), (0.5, 0.5, 0.0))})
    metrics = Metrics(CLASSES, reference=reference)
    metrics.count_properties(np.zeros((3, SIDE, SIDE, 3), np.uint8), np.array([-2, 0.5, 0.75], np.float32))
    metrics.count_properties(np.zeros((1, SIDE, SIDE, 3), np.uint8), None)  # of a network without scores
    assert read_counts(reference, metrics.registry.collect())["ood_score"] == [1, 2, 0]


def test_scores_begin_with_enough_answers_and_exceed_the_threshold_with_drift(metrics):
    drift = DriftMetrics(metrics.registry, RED_REFERENCE, Window(100, 1000))
    count(metrics, RED, "Ak", 99)
    found = samples(drift)
    assert found["vinegrape_drift_answers", "label"] == 99
    assert ("vinegrape_drift_score", "label") not in found
    count(metrics, RED, "Ak", 1)
    found = samples(drift)
    assert found["vinegrape_drift_score", "label"] < found["vinegrape_drift_threshold", "label"]
    count(metrics, GREEN, "Ala_Idris", 100)
    found = samples(drift)
    assert found["vinegrape_drift_score", "label"] > found["vinegrape_drift_threshold", "label"]
    assert found["vinegrape_drift_score", "brightness"] < found["vinegrape_drift_threshold", "brightness"]


def test_the_metrics_of_the_workers_are_passed_on(metrics):
    drift = DriftMetrics(metrics.registry, RED_REFERENCE, Window(100, 1000))
    names = {metric.name for metric in drift.collect()}
    assert names >= {metric.name for metric in metrics.registry.collect()}


def test_nothing_is_measured_without_a_reference():
    metrics = Metrics(CLASSES)
    count(metrics, RED, "Ak")
    assert not any("image_" in metric.name for metric in metrics.registry.collect())
