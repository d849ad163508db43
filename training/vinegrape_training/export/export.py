"""Export a finished run: write its weights in every format, and `metadata.json`, to a folder."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vinegrape_handler.metadata import METADATA_FILE, SELF_CHECK_FOLDER, Metadata
from vinegrape_handler.networks import Network, Outputs, load_network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import BACKENDS, Backend
from vinegrape_training.data.dataset import Dataset, load_images, scan
from vinegrape_training.data.manifest import compare, load_manifest
from vinegrape_training.errors import DataError, ExportError
from vinegrape_training.evaluation.figures import TestFigures
from vinegrape_training.export import parity, self_check
from vinegrape_training.export.graph import graph_of
from vinegrape_training.export.parity import Parity, ParityLimits
from vinegrape_training.export.weights import write_weights
from vinegrape_training.fit.run import Run

MODEL_NAME = "vinegrape"


@dataclass(frozen=True)
class Export:
    """A finished export.

    Attributes:
        folder: holds the weights, the self-check images and `metadata.json`.
        metadata: its version is empty; the archive sets it.
        parities: comparison of each weights file with the trained model.
    """

    folder: Path
    metadata: Metadata
    parities: dict[Backend, Parity]


def export_run(
    run_folder: Path, folder: Path, data_dir: Path | None = None, limits: ParityLimits | None = None
) -> Export:
    """Write a run's model in every format, and compare each file with the trained model on every image of the run.

    Args:
        run_folder: folder of a finished training run.
        folder: to write. An earlier export there is replaced, but only if the parity check passes.
        data_dir: the run's images, if they have moved.
        limits: of the parity check.

    Raises:
        RunError: `run_folder` holds no finished run.
        DataError: the images are not those of the run.
        ExportError: `folder` exists and is neither an export nor empty.
        ParityError: a file differs from the trained model by more than the limits.
    """
    _check_replaceable(folder)
    run = Run.read(run_folder)
    dataset = _dataset(run, data_dir or run.data_dir)
    images = load_images(dataset.folder, dataset.paths, run.input_size, run.interpolation)
    graph = graph_of(run, run.temperature)
    with tempfile.TemporaryDirectory(prefix="vinegrape-export-") as temporary:
        new = Path(temporary) / "export"  # copytree copies permissions, and only the owner may read `temporary`
        new.mkdir()
        write_weights(graph, run, dataset, images, new)
        networks = {backend: load_network(new, backend, WorkerSettings(), "cpu") for backend in BACKENDS}
        reference = parity.run(_Eager(run), images, 8)
        parities = {backend: parity.measure(network, images, reference) for backend, network in networks.items()}
        parity.check(parities, limits or ParityLimits())
        metrics = {
            **run.metrics,
            **_int8_metrics(run, dataset, images, networks["onnx_int8"]),
            "known_images": _known_images(dataset),
            **parity.as_metrics(parities),
        }
        metadata = _metadata(run, metrics)
        self_check.draw(new / SELF_CHECK_FOLDER)
        metadata = self_check.record(metadata, networks, new / SELF_CHECK_FOLDER)
        (new / METADATA_FILE).write_text(metadata.to_json())
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(new, folder)
    return Export(folder, metadata, parities)


def _check_replaceable(folder: Path) -> None:
    is_export = (folder / METADATA_FILE).is_file()
    is_empty = folder.is_dir() and not any(folder.iterdir())
    if folder.exists() and not is_export and not is_empty:
        raise ExportError(f"{folder} exists and is not an export. Give the name of a new folder.")


def _dataset(run: Run, folder: Path) -> Dataset:
    """Read the data set, and check that it is the one that the run used."""
    dataset = scan(folder)
    digest = dataset.digest()
    if digest != run.data_digest:
        raise DataError(
            f"The images in {folder} are not those of the run (digest {digest[:12]} instead of "
            f"{run.data_digest[:12]}). Pass the run's images with --data FOLDER."
        )
    return dataset


def _int8_metrics(run: Run, dataset: Dataset, images: NDArray[np.uint8], network: Network) -> dict[str, float]:
    """Add the accuracy of the int8 file on the test images to the run's test figures.

    A run without test images quotes a cross-validation, which has measured int8 already.
    """
    if not run.split.test:
        return {}
    predictions = parity.run(network, images[dataset.indices_of(run.split.test)], 1).argmax(1)
    accuracy = float((predictions == dataset.labels_of(run.split.test)).mean())
    figures = TestFigures.from_metrics(run.metrics, run.classes)
    return dataclasses.replace(figures, int8_accuracy=accuracy).to_metrics()


class _Eager:
    """The trained model as a `Network`. It has its own preprocessing code, because it checks that of the graph."""

    def __init__(self, run: Run) -> None:
        self._network, self._temperature, self._classes = run.load_model(), run.temperature, len(run.classes)
        self._mean, self._std = torch.tensor(run.mean).view(3, 1, 1), torch.tensor(run.std).view(3, 1, 1)

    def __call__(self, batch: NDArray[np.uint8]) -> Outputs:
        with torch.inference_mode():
            pixels = torch.from_numpy(batch).permute(0, 3, 1, 2) / 255
            logits = self._network((pixels - self._mean) / self._std)[:, : self._classes]
            return Outputs(torch.softmax(logits / self._temperature, dim=1).numpy())


def _known_images(dataset: Dataset) -> int:
    """Count the images that the manifest lists, in the same class."""
    return len(compare(dataset.folder, load_manifest()).matching)


def _metadata(run: Run, metrics: dict[str, float]) -> Metadata:
    return Metadata(
        name=MODEL_NAME,
        version="",
        architecture=run.architecture,
        classes=run.classes,
        input_size=run.input_size,
        interpolation=run.interpolation,
        temperature=run.temperature,
        ood_threshold=run.ood_threshold,
        initial_weights=run.initial_weights,
        data_digest=run.data_digest,
        reference=run.reference,
        metrics=metrics,
        libraries={**run.libraries, **{name: version(name) for name in ("onnx", "onnxruntime")}},
    )
