"""The model card: of the committed archive, and of models that were tested in other ways."""

import dataclasses
import zipfile

import pytest
from huggingface_hub import ModelCard

from tests.conftest import ROOT
from tests.support.metadata import METADATA
from vinegrape_handler.metadata import METADATA_FILE, Metadata
from vinegrape_handler.weights import BACKENDS
from vinegrape_training.errors import ExportError
from vinegrape_training.evaluation import figures
from vinegrape_training.evaluation.abstention import ForeignFigures
from vinegrape_training.evaluation.abstention import as_metrics as foreign_metrics
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


def card(test: figures.TestFigures, ood_threshold: float | None = None, **metrics: float) -> str:
    """The card of an archive of 1.2 MB."""
    values = {**COUNTS, **PARITIES, **test.to_metrics(), **metrics}
    return render(dataclasses.replace(METADATA, metrics=values, ood_threshold=ood_threshold), 1_200_000)


def test_the_committed_card_is_that_of_the_committed_archive():
    with zipfile.ZipFile(ARCHIVE) as archive:
        metadata = Metadata.from_json(archive.read(METADATA_FILE))
    assert render(metadata, ARCHIVE.stat().st_size) == CARD.read_text()


def test_a_single_split_is_described():
    text = card(TEST, validation_accuracy=0.9)
    assert "\n---\n\n# vinegrape 0123456789ab\n" in text
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


ROBUSTNESS = {"robustness_clean_accuracy": 0.99, "robustness_dark_0.6_accuracy": 0.9}
ABSTENTION = {
    "robustness_clean_known": 0.98,
    "robustness_clean_accuracy_of_known": 1.0,
    "robustness_dark_0.6_known": 0.0,
    **foreign_metrics({"other_varieties": ForeignFigures(64, 0.25, 0.9)}),
}


def test_a_model_that_cannot_abstain_says_so():
    text = card(TEST, **ROBUSTNESS)
    assert "\n| clean |  | 99.0% |\n" in text
    assert "\n| dark | 0.6 (factor of the brightness) | 90.0% |\n" in text
    assert 'It has no "unknown"' in text
    assert "### Foreign images" not in text


def test_a_model_that_abstains_has_figures_of_known_and_foreign_images():
    text = card(TEST, ood_threshold=1.5, **ROBUSTNESS, **ABSTENTION)
    assert "if the out-of-distribution score is above 1.500" in text
    assert "\n| clean |  | 99.0% | 98.0% | 100.0% |\n" in text
    assert "\n| dark | 0.6 (factor of the brightness) | 90.0% | 0.0% |  |\n" in text
    assert "\n| other varieties | 64 | 25.0% | 0.900 |\n" in text
    assert 'It has no "unknown"' not in text


def test_a_model_without_these_figures_has_no_empty_tables():
    assert "### Changed images" not in card(TEST, ood_threshold=1.5)


def test_programs_can_read_the_head():
    data = ModelCard(card(TEST, ood_threshold=1.5, known_images=100.0, **ROBUSTNESS, **ABSTENTION)).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "onnx", "image-classification")
    assert data.datasets == ["muratkokludataset/grapevine-leaves-image-dataset"]
    assert data.model_name == "vinegrape"
    results = {(result.dataset_config, result.metric_name): result.metric_value for result in data.eval_results}
    assert results == {
        (None, "accuracy, float32"): 0.85,
        (None, "accuracy, int8"): 0.8,
        (None, "expected calibration error"): 0.1,
        ("clean", "accuracy"): 0.99,
        ("clean", "share that is known"): 0.98,
        ("clean", "accuracy of the known"): 1.0,
        ("dark 0.6", "accuracy"): 0.9,
        ("dark 0.6", "share that is known"): 0.0,
        ("other_varieties", "share that passes"): 0.25,
        ("other_varieties", "AUROC against leaves"): 0.9,
    }


def test_the_head_of_a_model_of_other_images_names_no_data_set():
    data = ModelCard(card(TEST)).data
    assert data.datasets is None
    assert data.eval_results is not None
    assert {result.dataset_type for result in data.eval_results} == {"image_folder"}
