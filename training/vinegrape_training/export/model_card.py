"""Render the model card of an archive from its metadata: every figure in the card comes from there.

The card begins with a YAML head that programs can read. Its fields are those of Hugging Face's model cards
(https://huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined

from vinegrape_handler.metadata import Metadata
from vinegrape_handler.weights import BACKENDS
from vinegrape_training.evaluation import abstention, robustness
from vinegrape_training.evaluation.figures import TestFigures
from vinegrape_training.export import parity
from vinegrape_training.files import CARD_FILE

# Kaggle's name of the data set, which is not on Hugging Face's hub
_DATA_SET = "muratkokludataset/grapevine-leaves-image-dataset"
_TASK = "image-classification"

_TEMPLATE = Path(__file__).with_name("model_card.md.j2")


def write_card(metadata: Metadata, archive: Path) -> Path:
    """Write `MODEL_CARD.md` to the folder of an archive, and return its path."""
    card = archive.with_name(CARD_FILE)
    card.write_text(render(metadata, archive.stat().st_size), encoding="utf-8")
    return card


def render(metadata: Metadata, archive_bytes: int) -> str:
    """Render the card as Markdown.

    Args:
        metadata: the archive's metadata, with the figures of a test.
        archive_bytes: size of the archive file.

    Raises:
        ExportError: the model was never tested.
    """
    environment = Environment(  # noqa: S701 - Markdown needs no HTML escapes
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    test = TestFigures.from_metrics(metadata.metrics, metadata.classes)
    body = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        model=metadata,
        metrics=metadata.metrics,
        known=_is_known(metadata),
        test=test,
        robustness=robustness.from_metrics(metadata.metrics),
        foreign=abstention.from_metrics(metadata.metrics),
        parities={backend: parity.from_metrics(metadata.metrics, backend) for backend in BACKENDS},
        archive_mb=archive_bytes / 1e6,
    )
    return f"---\n{_head(metadata, test)}---\n\n{body}"


def _is_known(metadata: Metadata) -> bool:
    """Whether all images of the model are in this project's manifest of the data set."""
    return metadata.metrics["known_images"] == metadata.metrics["images"]


def _head(metadata: Metadata, test: TestFigures) -> str:
    """Return the card's head as YAML."""
    known = _is_known(metadata)
    data = ModelCardData(
        license="apache-2.0",
        library_name="onnx",
        pipeline_tag=_TASK,
        tags=[_TASK, metadata.architecture, "torchserve", "onnxruntime", "torchscript"],
        datasets=[_DATA_SET] if known else None,
        metrics=["accuracy"],
        model_name=metadata.name,
        eval_results=_results(metadata, test),
    )
    return f"{data.to_yaml()}\n"


def _results(metadata: Metadata, test: TestFigures) -> list[EvalResult]:
    """List the measured figures; the configuration of a data set names the corruption, or the kind of images."""
    data, name = ("image_folder", "images of the user")
    if _is_known(metadata):
        data, name = _DATA_SET, "Grapevine Leaves Image Dataset"
    leaves = partial(EvalResult, _TASK, data, name)
    foreign = partial(EvalResult, _TASK, "image_folder", "foreign images")
    accuracy = partial(leaves, metric_type="accuracy")
    results = [
        accuracy(metric_name="accuracy, float32", metric_value=test.accuracy),
        accuracy(metric_name="accuracy, int8", metric_value=test.int8_accuracy),
        leaves("expected_calibration_error", test.calibration_error, metric_name="expected calibration error"),
    ]
    for row in robustness.from_metrics(metadata.metrics):
        config = row.condition.label
        results += [
            accuracy(metric_name="accuracy", metric_value=row.accuracy, dataset_config=config),
            accuracy(metric_name="accuracy of the known", metric_value=row.accuracy_of_known, dataset_config=config),
            leaves("coverage", row.known, metric_name="share that is known", dataset_config=config),
        ]
    for kind, figures in abstention.from_metrics(metadata.metrics).items():
        results += [
            foreign("false_positive_rate", figures.passed, metric_name="share that passes", dataset_config=kind),
            foreign("roc_auc", figures.auroc, metric_name="AUROC against leaves", dataset_config=kind),
        ]
    measured = [result for result in results if result.metric_value is not None]
    for result in measured:
        result.metric_value = round(result.metric_value, 4)
    return measured
