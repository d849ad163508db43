"""The model card: of the committed archive, and of models that were tested in other ways."""

import dataclasses
import zipfile

import pytest

from tests.conftest import ROOT
from tests.support.metadata import METADATA
from vinegrape_handler.metadata import METADATA_FILE, Metadata
from vinegrape_handler.weights import BACKENDS
from vinegrape_training.errors import ExportError
from vinegrape_training.evaluation import figures
from vinegrape_training.export.model_card import render, write_card
from vinegrape_training.export.parity import Parity, as_metrics

ARCHIVE = ROOT / "model_store" / "vinegrape.mar"
CARD = ROOT / "model_store" / "MODEL_CARD.md"

DATA_SET = ("Grapevine Leaves Image Dataset", "light box", "Koklu")  # words that describe the known data set

TEST = figures.TestFigures(
    images=20,
    accuracy=0.85,
    accuracy_95=(0.64, 0.948),
    calibration_error_before=0.2,
    calibration_error=0.1,
    recall={"Ak": 0.7, "Nazli": 1.0},
    int8_accuracy=0.8,
)
COUNTS = {"images": 100.0, "known_images": 0.0, "train_images": 65.0, "validation_images": 15.0}
PARITIES = as_metrics(dict.fromkeys(BACKENDS, Parity(agreement=0.99, difference=2e-5, batch_difference=0.0)))


def card(test: figures.TestFigures, **metrics: float) -> str:
    """The card of an archive of 1.2 MB."""
    return render(
        dataclasses.replace(METADATA, metrics={**COUNTS, **PARITIES, **test.to_metrics(), **metrics}), 1_200_000
    )


def test_the_committed_card_is_that_of_the_committed_archive():
    with zipfile.ZipFile(ARCHIVE) as archive:
        metadata = Metadata.from_json(archive.read(METADATA_FILE))
    assert render(metadata, ARCHIVE.stat().st_size) == CARD.read_text()


def test_a_single_split_is_described():
    text = card(TEST, validation_accuracy=0.9)
    assert text.startswith("# vinegrape 0123456789ab\n")
    assert "trained from random weights" in text
    assert "65 for training, 15 for\nvalidation" in text
    for row in (
        "| archive | 1.2 MB |",
        "| accuracy, float32 | 85.0% |",
        "| 95 % Wilson interval | 64.0% to 94.8% |",
        "| accuracy, int8 (served on CPU) | 80.0% |",
        "| recall of Ak | 70.0% |",
        "| expected calibration error, 15 bins | 0.100 |",
        "| accuracy on the validation images | 90.0% (optimistic: these images selected the epoch) |",
        "| torchscript | 99.00% | 2.0e-05 | 0.0e+00 |",
    ):
        assert f"\n{row}\n" in text


def test_a_cross_validation_is_described():
    text = card(dataclasses.replace(TEST, int8_calibration_error=0.3, folds=5, seeds=2))
    assert "split into 5 folds" in text
    assert "repeated 2 times" in text
    assert "\n| expected calibration error, int8 | 0.300 |\n" in text
    assert "validation images" not in text


def test_a_training_without_validation_images_has_no_validation_accuracy():
    assert "accuracy on the validation images" not in card(TEST)


def test_only_the_known_data_set_is_described():
    unknown, known = card(TEST), card(TEST, known_images=100.0)
    for words in DATA_SET:
        assert words in known
        assert words not in unknown


def test_a_model_without_test_figures_is_refused():
    with pytest.raises(ExportError, match="has no test figures"):
        render(dataclasses.replace(METADATA, metrics={**COUNTS, **PARITIES}), 1_000_000)


def test_the_card_is_written_beside_the_archive(tmp_path):
    metadata = dataclasses.replace(METADATA, metrics={**COUNTS, **PARITIES, **TEST.to_metrics()})
    (tmp_path / "vinegrape.mar").write_bytes(bytes(2_000_000))
    assert write_card(metadata, tmp_path / "vinegrape.mar") == tmp_path / "MODEL_CARD.md"
    assert "| archive | 2.0 MB |" in (tmp_path / "MODEL_CARD.md").read_text()
