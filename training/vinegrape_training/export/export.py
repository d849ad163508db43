"""A finished run to the folder that an archive is made of: the weights in every format, and `metadata.json`."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from vinegrape_handler.metadata import METADATA_FILE, SELF_CHECK_FOLDER, Metadata
from vinegrape_handler.networks import Network, load_network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import BACKENDS, Backend
from vinegrape_training.data.dataset import Dataset, load_images, scan
from vinegrape_training.data.manifest import compare, load_manifest
from vinegrape_training.errors import DataError, ExportError
from vinegrape_training.export import parity, self_check
from vinegrape_training.export.graph import ServingGraph
from vinegrape_training.export.parity import Parity, ParityLimits
from vinegrape_training.export.weights import write_weights
from vinegrape_training.fit.run import Run

MODEL_NAME = "vinegrape"


@dataclass(frozen=True)
class Export:
    """What `export` made.

    Attributes:
        folder: holds the weights, the self-check's pictures and `metadata.json`.
        metadata: with the version still empty: the archive gives it.
        parities: of each file against the eager model.
    """

    folder: Path
    metadata: Metadata
    parities: dict[Backend, Parity]


def export(run_folder: Path, folder: Path, data_dir: Path | None = None, limits: ParityLimits | None = None) -> Export:
    """Write a run's model in every format, and check each file on every image of the run's data.

    Args:
        run_folder: of a finished training run.
        folder: to write; replaced if it exists, and not touched when the gate fails.
        data_dir: where the run's data lies now, if it has moved.
        limits: of the gate.

    Raises:
        DataError: the data is not what the run saw.
        ExportError: `folder` holds something else than an export.
        ParityError: a file differs from the trained model by more than the limits.
    """
    _check_replaceable(folder)
    run = Run.read(run_folder)
    dataset = _dataset(run, data_dir or run.data_dir)
    images = load_images(dataset.folder, dataset.paths, run.input_size, run.interpolation)
    network = run.load_model()
    graph = ServingGraph(network, run.mean, run.std, run.temperature).eval()
    with tempfile.TemporaryDirectory(prefix="vinegrape-export-") as temporary:
        made = Path(temporary) / "export"  # its own folder, with the permissions that folders have
        made.mkdir()
        write_weights(graph, run, dataset, images, made)
        networks = {b: load_network(made, b, WorkerSettings(), "cpu") for b in BACKENDS}
        reference = parity.run(_Eager(run, network), images, 8)
        parities = {b: parity.measure(network, images, reference) for b, network in networks.items()}
        parity.check(parities, limits or ParityLimits())
        metrics = {
            **run.metrics,
            **_int8_test(run, dataset, images, networks["onnx_int8"]),
            "known_images": _known_images(dataset),
            **parity.as_metrics(parities),
        }
        metadata = _metadata(run, metrics)
        self_check.draw(made / SELF_CHECK_FOLDER)
        metadata = self_check.record(metadata, networks, made / SELF_CHECK_FOLDER)
        (made / METADATA_FILE).write_text(metadata.to_json())
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made, folder)
    return Export(folder, metadata, parities)


def _check_replaceable(folder: Path) -> None:
    if (
        folder.exists()
        and not (folder / METADATA_FILE).is_file()
        and not (folder.is_dir() and not any(folder.iterdir()))
    ):
        raise ExportError(f"{folder} exists and is not an export; name another folder, which the export will make.")


def _dataset(run: Run, folder: Path) -> Dataset:
    """The data that the run saw, or an error."""
    dataset = scan(folder)
    digest = dataset.digest()
    if digest != run.data_digest:
        raise DataError(
            f"The images in {folder} are not those that the run was trained on (digest {digest[:12]} instead of "
            f"{run.data_digest[:12]}). Say where those are with --data."
        )
    return dataset


def _int8_test(run: Run, dataset: Dataset, images: NDArray[np.uint8], network: Network) -> dict[str, float]:
    """The int8 file's accuracy on the test images; without any, cross-validation has measured it."""
    if not run.split.test:
        return {}
    answers = parity.run(network, images[dataset.indices_of(run.split.test)], 1).argmax(1)
    return {"test_accuracy_onnx_int8": float((answers == dataset.labels_of(run.split.test)).mean())}


class _Eager:
    """The trained model as a `Network`, its preprocessing written out apart from the graph that it is to check."""

    def __init__(self, run: Run, network: nn.Module) -> None:
        self._network, self._temperature = network, run.temperature
        self._mean, self._std = torch.tensor(run.mean).view(3, 1, 1), torch.tensor(run.std).view(3, 1, 1)

    def __call__(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        with torch.inference_mode():
            pixels = torch.from_numpy(batch).permute(0, 3, 1, 2) / 255
            logits = self._network((pixels - self._mean) / self._std)
            probabilities: NDArray[np.float32] = torch.softmax(logits / self._temperature, dim=1).numpy()
        return probabilities


def _known_images(dataset: Dataset) -> int:
    """How many of the images are in the manifest, each in its class."""
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
        initial_weights=run.initial_weights,
        data_digest=run.data_digest,
        metrics=metrics,
        libraries={**run.libraries, **{name: version(name) for name in ("onnx", "onnxruntime")}},
    )
