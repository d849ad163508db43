"""The reference distributions of predictions and images."""

import numpy as np
import pytest

from vinegrape_training.evaluation.reference import make_reference

CLASSES = ("Ak", "Nazli")


def images(number: int) -> np.ndarray:
    """White images with a black square of different size."""
    result = np.full((number, 64, 64, 3), 255, np.uint8)
    for index in range(number):
        result[index, 20 : 20 + index % 30, 10:50] = 0
    return result


def probabilities(*first: float) -> np.ndarray:
    """Of one seed and two classes."""
    return np.array([[value, 1 - value] for value in first])[None]


def test_labels_are_counted_over_all_seeds():
    seeds = np.concatenate([probabilities(0.9, 0.2), probabilities(0.8, 0.7)])
    reference = make_reference(CLASSES, seeds, None, images(2))
    assert reference.images == 2
    assert reference.labels == {"Ak": 0.75, "Nazli": 0.25}


def test_bins_have_about_the_same_share_and_one_on_each_side_is_empty():
    reference = make_reference(CLASSES, probabilities(*np.linspace(0.51, 1, 200)), None, images(200))
    confidence = reference.values["confidence"]
    assert confidence.shares[0] == confidence.shares[-1] == 0
    assert confidence.shares[1:-1] == pytest.approx([0.1] * 10)
    assert confidence.edges[0] == pytest.approx(0.5)
    assert confidence.edges[-1] == pytest.approx(1.01)


def test_equal_values_get_a_bin_that_tolerates_noise():
    """JPEG changes a white background by some units of 255."""
    background = make_reference(CLASSES, probabilities(*[0.9] * 40), None, images(40)).values["background"]
    assert any(low < 0.98 and high >= 1 for low, high in zip(background.edges, background.edges[1:], strict=False))
    assert background.edges[0] == pytest.approx(0.95)
    assert max(background.shares) == 1


def test_all_properties_have_a_distribution():
    reference = make_reference(CLASSES, probabilities(*[0.9] * 40), None, images(40))
    properties = {"confidence", "brightness", "sharpness", "background", "size", "warmth"}
    assert set(reference.values) == properties
    scores = np.linspace(-9, 3, 40)[None]
    with_scores = make_reference(CLASSES, probabilities(*[0.9] * 40), scores, images(40))
    assert set(with_scores.values) == {*properties, "ood_score"}
    assert with_scores.values["ood_score"].edges[0] == pytest.approx(-9.1)
