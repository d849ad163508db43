"""False and true alarms with real images: the reference knows one half of the leaves, the other half is drawn from.

The predictions are those of cross-validation. For changed and foreign images they stay those of clean leaves, which is
the worst case: only the properties of the images can raise the alarm.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tests.conftest import ROOT, shared
from vinegrape_handler.metrics import Metrics
from vinegrape_handler.reference import Reference
from vinegrape_server.drift.metrics import DriftMetrics
from vinegrape_server.drift.window import Window
from vinegrape_server.settings import MIN_DRIFT_ANSWERS, ServeSettings

pytestmark = pytest.mark.xdist_group("real_leaves")

SIDE = 320  # the size of the shipped network's input
LOOK_EVERY = 20  # answers between two readings of the metrics


@pytest.fixture(scope="module")
def predictions():
    from vinegrape_training.evaluation.out_of_fold import OutOfFold

    return OutOfFold.read(ROOT / "docs" / "model" / "out_of_fold.npz")


@pytest.fixture(scope="module")
def probabilities(predictions) -> np.ndarray:
    """Of each image by one network that was not trained on it, [images, classes]."""
    return predictions.probabilities(predictions.logits)[0]


@pytest.fixture(scope="module")
def images(leaves, predictions) -> np.ndarray:
    from vinegrape_training.data.dataset import load_images

    return load_images(leaves, predictions.paths, SIDE, "bicubic")


@pytest.fixture(scope="module")
def foreign() -> np.ndarray:
    """Leaves of other plants on plain backgrounds: of all foreign images they are most like the leaves."""
    from vinegrape_training.data.dataset import load_images

    folder = shared("data/foreign")
    paths = sorted(path.relative_to(folder).as_posix() for path in (folder / "near_leaf_plain").iterdir())
    return load_images(folder, np.random.default_rng(0).choice(paths, 100, replace=False).tolist(), SIDE, "bicubic")


def blurred(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(2)))


def recoloured(image: np.ndarray) -> np.ndarray:
    """The colours are turned by 56 degrees."""
    hue, saturation, value = Image.fromarray(image).convert("HSV").split()
    return np.asarray(Image.merge("HSV", [hue.point(lambda h: (h + 40) % 256), saturation, value]).convert("RGB"))


CHANGES = {
    "blurred": blurred,
    "dark": lambda image: (image * 0.6).astype(np.uint8),
    "recoloured": recoloured,
    "warm light": lambda image: (image * [1, 0.92, 0.75]).astype(np.uint8),
}


class Monitored:
    """A model whose answers are counted by a worker's metrics, and compared with a reference as a server does it."""

    def __init__(self, reference: Reference) -> None:
        self._metrics = Metrics(tuple(reference.labels), reference=reference)
        self._classes = tuple(reference.labels)
        window = Window(ServeSettings().drift_window, 3600)
        self._drift = DriftMetrics(self._metrics.registry, reference, window)

    def answer(self, image: np.ndarray, probabilities: np.ndarray) -> None:
        self._metrics.count_prediction(self._classes[probabilities.argmax()], float(probabilities.max()))
        self._metrics.count_properties(image[None], None)

    def drifted(self) -> set[str]:
        metrics = {metric.name: metric for metric in self._drift.collect()}
        scores, thresholds = (
            {sample.labels["property"]: sample.value for sample in metrics[f"vinegrape_drift_{name}"].samples}
            for name in ("score", "threshold")
        )
        return {name for name, score in scores.items() if score > thresholds[name]}


def halves(images: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The indices of both halves of the images."""
    known, unseen = np.split(np.random.default_rng(seed).permutation(len(images)), 2)
    return known, unseen


def monitored(known: np.ndarray, images: np.ndarray, probabilities: np.ndarray) -> Monitored:
    """A model whose reference comes from some of the leaves."""
    from vinegrape_training.evaluation.reference import make_reference

    classes = ["Ak", "Ala_Idris", "Buzgulu", "Dimnit", "Nazli"]
    return Monitored(make_reference(classes, probabilities[None, known], None, images[known]))


def draws(indices: np.ndarray, number: int, seed: int) -> Iterator[int]:
    return iter(np.random.default_rng(seed).choice(indices, number).tolist())


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(3, 50))])
def test_1000_draws_of_leaves_that_the_reference_did_not_see_raise_no_alarm(images, probabilities, seed):
    known, unseen = halves(images, seed)
    model = monitored(known, images, probabilities)
    for number, index in enumerate(draws(unseen, 1000, seed), start=1):
        model.answer(images[index], probabilities[index])
        if number % LOOK_EVERY == 0:
            assert model.drifted() == set(), f"after {number} draws"


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("clean", [0, 500])
def test_changed_leaves_raise_an_alarm_within_200_requests(images, probabilities, change, clean):
    """Also if the window is full of clean leaves."""
    known, unseen = halves(images, 0)
    model = monitored(known, images, probabilities)
    for index in draws(unseen, clean, seed=1):
        model.answer(images[index], probabilities[index])
    assert model.drifted() == set()
    changed = {index: CHANGES[change](images[index]) for index in unseen[:50]}
    for index in draws(unseen[:50], 200, seed=2):
        model.answer(changed[index], probabilities[index])
    assert model.drifted()


def test_foreign_images_raise_an_alarm_within_200_requests(images, foreign, probabilities):
    known, unseen = halves(images, 0)
    model = monitored(known, images, probabilities)
    for index in draws(unseen, 500, seed=1):
        model.answer(images[index], probabilities[index])
    for number, index in enumerate(draws(unseen, 200, seed=2)):
        model.answer(foreign[number % len(foreign)], probabilities[index])
    assert model.drifted()


def test_a_few_answers_raise_no_alarm(images, probabilities):
    known, unseen = halves(images, 0)
    model = monitored(known, images, probabilities)
    for index in np.resize(unseen, MIN_DRIFT_ANSWERS - 1):
        model.answer(blurred(images[index]), probabilities[index])
    assert model.drifted() == set()
    model.answer(blurred(images[unseen[0]]), probabilities[unseen[0]])
    assert model.drifted() == {"sharpness"}
