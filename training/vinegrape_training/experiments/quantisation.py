"""The effect of int8 on predictions and latency: `vinegrape bench int8 RUN`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vinegrape_handler.networks import load_network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import WEIGHTS_FILES
from vinegrape_training.data.dataset import load_dataset, scan
from vinegrape_training.errors import RunError
from vinegrape_training.experiments.timing import time_in_turns
from vinegrape_training.export import parity, weights
from vinegrape_training.export.graph import graph_of
from vinegrape_training.fit.run import Run
from vinegrape_training.progress import progress

SHARES = (0.0, 0.05, weights.FLOAT_SHARE, 0.5)


@dataclass(frozen=True)
class Int8Row:
    """One file compared with the float32 file.

    Attributes:
        float_share: share of the convolutions that stays float, 0 to 1; 1 is the float32 file itself.
        changed: number of images with another top-1 class than in float32.
        wrong: number of misclassified images.
        mean_difference: mean absolute difference of the probabilities.
        largest_difference: largest absolute difference of a probability.
        relative_time: median, over the rounds, of its time over that of float32.
    """

    float_share: float
    changed: int
    wrong: int
    mean_difference: float
    largest_difference: float
    relative_time: float


@dataclass(frozen=True)
class Int8Comparison:
    """Files of one network with different shares of int8.

    Attributes:
        images: number of test images.
        architecture: timm's name.
        input_size: width and height of the input in pixels.
        rows: the float32 file, then one int8 file per share.
    """

    images: int
    architecture: str
    input_size: int
    rows: tuple[Int8Row, ...]

    def table(self) -> str:
        """Format as a title and a Markdown table."""
        lines = [
            f"{self.images} images, {self.architecture} at {self.input_size} px",
            "| stays float | changed | wrong | mean difference | largest difference | time relative to float32 |",
            "|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            name = "everything" if row.float_share == 1 else f"{row.float_share:.0%} of the convolutions"
            lines.append(
                f"| {name} | {row.changed} | {row.wrong} | {row.mean_difference:.4f} "
                f"| {row.largest_difference:.3f} | {row.relative_time:.2f} |"
            )
        return "\n".join(lines)


def measure_int8(run_folder: Path, shares: Sequence[float] = SHARES) -> Int8Comparison:
    """Quantise a run's network with different shares left float, and compare each file with the float32 file.

    Predictions are compared on the run's test images, which are not used for calibration. Times are of one image on
    one thread, measured in turns.

    Args:
        run_folder: folder of a training run, or of a fold of an evaluation.
        shares: of the convolutions that stay float, 0 to below 1.

    Raises:
        RunError: the folder is not a finished run, or the run has no test images.
        DataError: the run's images cannot be read.
    """
    run = Run.read(run_folder)
    if not run.split.test:
        raise RunError(f"{run_folder} has no test images. Pass a fold of an evaluation: EVALUATION/seed-1/fold-0.")
    dataset = scan(run.data_dir)
    images = load_dataset(dataset, run.input_size, run.interpolation)
    calibration = images[weights.calibration_images(run, dataset)]
    test, labels = images[dataset.indices_of(run.split.test)], dataset.labels_of(run.split.test)
    graph = graph_of(run, run.temperature)
    settings = WorkerSettings(threads=1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        float_file = folder / WEIGHTS_FILES["onnx_fp32"]
        weights.write_onnx(graph, run.input_size, float_file)
        networks = [load_network(folder, "onnx_fp32", settings, "cpu")]
        for share in progress(shares, "Quantising"):
            target = folder / str(share)
            target.mkdir()
            weights.write_int8(float_file, calibration, target / WEIGHTS_FILES["onnx_int8"], share)
            networks.append(load_network(target, "onnx_int8", settings, "cpu"))
        probabilities = [parity.run(network, test, 1) for network in networks]
        times = time_in_turns(networks, [run.input_size] * len(networks))
    rows = [
        compare_with_float(share, probabilities[number], probabilities[0], labels, times[:, number] / times[:, 0])
        for number, share in enumerate([1.0, *shares])
    ]
    return Int8Comparison(len(test), run.architecture, run.input_size, tuple(rows))


def compare_with_float(
    float_share: float,
    probabilities: NDArray[np.float32],
    reference: NDArray[np.float32],
    labels: NDArray[np.int64],
    relative_times: NDArray[np.float64],
) -> Int8Row:
    """Compare the probabilities of one file with those of the float32 file.

    Args:
        float_share: share of the convolutions that stays float, 0 to 1.
        probabilities: float32 [N, classes], of the file.
        reference: float32 [N, classes], of the float32 file.
        labels: int64 [N].
        relative_times: float64 [rounds], the file's time over that of the float32 file.
    """
    difference = np.abs(probabilities - reference)
    return Int8Row(
        float_share=float_share,
        changed=int((probabilities.argmax(1) != reference.argmax(1)).sum()),
        wrong=int((probabilities.argmax(1) != labels).sum()),
        mean_difference=float(difference.mean()),
        largest_difference=float(difference.max()),
        relative_time=float(np.median(relative_times)),
    )
