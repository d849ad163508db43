"""Robustness of an archive, or of the networks of a cross-validation: `vinegrape robustness`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vinegrape_handler.errors import SettingError
from vinegrape_handler.metadata import Metadata
from vinegrape_handler.networks import Network, load_network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import WEIGHTS_FILES, available_backends, choose_backend
from vinegrape_training.data.dataset import load_images, scan
from vinegrape_training.data.image_folder import list_images
from vinegrape_training.evaluation.abstention import (
    ForeignFigures,
    foreign_figures,
    out_of_fold_thresholds,
    threshold_for,
)
from vinegrape_training.evaluation.out_of_fold import OUT_OF_FOLD_FILE, OutOfFold
from vinegrape_training.evaluation.plots import draw_robustness_curves, draw_robustness_map
from vinegrape_training.evaluation.report import Report
from vinegrape_training.evaluation.robustness import (
    Condition,
    Predictions,
    Robustness,
    measure,
    rows,
    scores_of,
)
from vinegrape_training.experiments.cross_validation import weights_of_fold
from vinegrape_training.export import parity
from vinegrape_training.export.archive import opened
from vinegrape_training.fit.run import Run

_FOREIGN_BATCH = 64  # images in memory


def measure_archive(
    archive: Path,
    data_dir: Path,
    conditions: Sequence[Condition],
    *,
    foreign_dir: Path | None = None,
    threshold: float | None = None,
) -> Robustness:
    """Measure the network of an archive, as it is served on a CPU. It may have been trained on the images.

    Args:
        archive: a model archive, or the folder of an export.
        data_dir: leaves, one folder per class.
        conditions: see `robustness.conditions`; the first is the clean image.
        foreign_dir: images that are none of the classes, one folder per kind.
        threshold: of the score; else that of the archive, or, if it has none, one that 98 % of the clean leaves pass.

    Raises:
        ArchiveError: `archive` is not an archive.
        SettingError: the folders of the leaves are not the classes of the archive.
        DataError: an image cannot be decoded.
    """
    dataset = scan(data_dir)
    with opened(archive) as folder:
        metadata = Metadata.read(folder)
        backend = choose_backend("auto", available_backends(folder), on_gpu=False)
        network = load_network(folder, backend, WorkerSettings(), "cpu")
    if metadata.classes != dataset.classes:
        raise SettingError(
            f"{data_dir} has the folders {', '.join(dataset.classes)}, but the classes of {archive} are "
            f"{', '.join(metadata.classes)}. Give images with one folder per class of the archive."
        )

    def classify(_: int, variants: NDArray[np.uint8]) -> Predictions:
        return _run([network], variants)

    side, interpolation = metadata.input_size, metadata.interpolation
    measurement = measure(dataset, side, interpolation, classify, conditions)
    scores, score = scores_of(measurement.probabilities, measurement.scores)
    clean = scores[0, 0]
    if threshold is None:
        threshold = metadata.ood_threshold if metadata.ood_threshold is not None else threshold_for(clean)
    foreign = None
    if foreign_dir is not None:
        foreign = _measure_foreign(network, metadata, foreign_dir, clean, threshold)
    return Robustness(
        source="archive",
        model=metadata.version,
        data_digest=dataset.digest(),
        seeds=1,
        score=score,
        threshold=threshold,
        rows=rows(measurement, measurement.probabilities, scores, np.full((1, len(dataset.paths)), threshold)),
        foreign=foreign,
    )


def measure_evaluation(
    folder: Path, data_dir: Path, conditions: Sequence[Condition], *, threshold: float | None = None
) -> Robustness:
    """Measure the int8 networks of an evaluation. Each image is classified by networks that were not trained on it.

    The temperature of a fold is fitted on the clean predictions of the other folds, and its threshold is chosen on
    their scores: as `OutOfFold.thresholds` does if there are outliers, else so that 98 % of the clean leaves pass. The
    figures of foreign images are those of the evaluation: of outliers whose source and species no network has seen.

    Args:
        folder: an evaluation with int8 files.
        data_dir: the images of the evaluation.
        conditions: see `robustness.conditions`; the first is the clean image.
        threshold: one threshold of the score for all folds.

    Raises:
        SettingError: `folder` is not an evaluation with int8 files, or of other images.
        DataError: an image cannot be decoded.
    """
    report, dataset = Report.read(folder), scan(data_dir)
    predictions = OutOfFold.read(folder / OUT_OF_FOLD_FILE)
    if dataset.digest() != report.data_digest:
        raise SettingError(f"{folder} is an evaluation of other images than those in {data_dir}. Give its images.")
    folds = predictions.folds.numpy()
    networks = _load_folds(folder, predictions.seeds, folds)
    run = Run.read(weights_of_fold(folder, predictions.seeds[0], 0).parent)

    def classify(index: int, variants: NDArray[np.uint8]) -> Predictions:
        return _run([networks[row, int(fold)] for row, fold in enumerate(folds[:, index])], variants)

    measurement = measure(dataset, run.input_size, run.interpolation, classify, conditions)
    probabilities = np.stack([_calibrated(predictions, values) for values in measurement.probabilities])
    scores, score = scores_of(probabilities, measurement.scores)
    if threshold is not None:
        thresholds = np.full(folds.shape, threshold)
    elif predictions.outliers is not None:
        thresholds = predictions.thresholds()
    else:
        thresholds = np.stack([out_of_fold_thresholds(*pair) for pair in zip(scores[0], folds, strict=True)])
    foreign = None
    if report.abstention:
        foreign = {
            kind: ForeignFigures(figures["images"], **figures["new_source"])
            for kind, figures in report.abstention["kinds"].items()
        }
    return Robustness(
        source="evaluation",
        model="",
        data_digest=report.data_digest,
        seeds=len(predictions.seeds),
        score=score,
        threshold=float(thresholds.mean()),
        rows=rows(measurement, probabilities, scores, thresholds),
        foreign=foreign,
    )


def write(result: Robustness, folder: Path) -> None:
    """Write `robustness.json` and the plots to a folder, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    result.write(folder)
    draw_robustness_map(result.rows, folder / "robustness_map.png")
    draw_robustness_curves(result.rows, folder / "robustness_curves.png")


def _run(networks: Sequence[Network], variants: NDArray[np.uint8]) -> Predictions:
    """Classify the variants of an image one by one, as a CPU serves them, with one network per seed."""
    outputs = [parity.outputs(network, variants, 1) for network in networks]
    scores = [each.ood_scores for each in outputs if each.ood_scores is not None]
    probabilities = np.stack([each.probabilities for each in outputs])
    return Predictions(probabilities, np.stack(scores) if len(scores) == len(outputs) else None)


def _measure_foreign(
    network: Network, metadata: Metadata, folder: Path, clean: NDArray[np.floating], threshold: float
) -> dict[str, ForeignFigures]:
    scores: dict[str, NDArray[np.floating]] = {}
    for kind, paths in list_images(folder).items():
        names = [path.name for path in paths]
        found = []
        for start in range(0, len(names), _FOREIGN_BATCH):
            batch = names[start : start + _FOREIGN_BATCH]
            images = load_images(
                folder / kind, batch, metadata.input_size, metadata.interpolation, f"Classifying {kind}"
            )
            predictions = _run([network], images)
            found.append(scores_of(predictions.probabilities, predictions.scores)[0][0])
        if found:
            scores[kind] = np.concatenate(found)
    if not scores:
        raise SettingError(f"{folder} holds no images. Give a folder that holds one folder of images per kind.")
    return foreign_figures(clean, scores, threshold)


def _load_folds(folder: Path, seeds: Sequence[int], folds: NDArray[np.int64]) -> dict[tuple[int, int], Network]:
    """Load the int8 network of each fold; the keys are the row of the seed and the number of the fold."""
    networks = {}
    for row, seed in enumerate(seeds):
        for number in np.unique(folds[row]).tolist():
            weights = weights_of_fold(folder, seed, number)
            if not (weights / WEIGHTS_FILES["onnx_int8"]).is_file():
                raise SettingError(f"{weights} has no int8 file. Run the same `vinegrape evaluate` with --int8.")
            networks[row, number] = load_network(weights, "onnx_int8", WorkerSettings(), "cpu")
    return networks


def _calibrated(predictions: OutOfFold, probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Apply the temperature of each fold to the probabilities [R, N, C] of its network, whose temperature is 1."""
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    return predictions.probabilities(torch.from_numpy(logits))
