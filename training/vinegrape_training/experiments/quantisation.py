"""The effect of int8 on predictions and latency: `vinegrape bench int8 RUN`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vinegrape_handler.networks import Outputs, load_network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import WEIGHTS_FILES
from vinegrape_training.data.dataset import load_dataset, scan
from vinegrape_training.errors import RunError
from vinegrape_training.experiments.timing import time_in_turns
from vinegrape_training.export import parity, weights
from vinegrape_training.export.graph import graph_of
from vinegrape_training.export.int8 import write_int8
from vinegrape_training.fit.run import Run
from vinegrape_training.progress import progress

FLOAT32, WITHOUT_CORRECTION, CORRECTED = "float32", "int8 without corrected biases", "int8"


@dataclass(frozen=True)
class Int8Row:
    """One file compared with the float32 file.

    Attributes:
        name: of the file.
        changed: number of images with another top-1 class than in float32.
        wrong: number of misclassified images.
        mean_difference: mean absolute difference of the probabilities.
        largest_difference: largest absolute difference of a probability.
        ood_difference: mean absolute difference of the out-of-distribution score; None if the network computes none.
        relative_time: median, over the rounds, of its time over that of float32.
    """

    name: str
    changed: int
    wrong: int
    mean_difference: float
    largest_difference: float
    ood_difference: float | None
    relative_time: float


@dataclass(frozen=True)
class Int8Comparison:
    """The float32 file and the int8 files of one network.

    Attributes:
        images: number of test images.
        architecture: timm's name.
        input_size: width and height of the input in pixels.
        rows: the float32 file, then the int8 files.
    """

    images: int
    architecture: str
    input_size: int
    rows: tuple[Int8Row, ...]

    def table(self) -> str:
        """Format as a title and a Markdown table."""
        lines = [
            f"{self.images} images, {self.architecture} at {self.input_size} px",
            "| file | changed | wrong | mean difference | largest difference | of the OOD score | time / float32 |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in self.rows:
            ood = "" if row.ood_difference is None else f"{row.ood_difference:.2f}"
            lines.append(
                f"| {row.name} | {row.changed} | {row.wrong} | {row.mean_difference:.4f} "
                f"| {row.largest_difference:.3f} | {ood} | {row.relative_time:.2f} |"
            )
        return "\n".join(lines)


def measure_int8(run_folder: Path) -> Int8Comparison:
    """Quantise a run's network with and without corrected biases, and compare each file with the float32 file.

    Outputs are compared on the run's test images, which are not used for calibration. Times are of one image on one
    thread, measured in turns.

    Args:
        run_folder: folder of a training run, or of a fold of an evaluation.

    Raises:
        RunError: the folder is not a finished run, or the run has no test images.
        DataError: the run's images cannot be read.
    """
    run = Run.read(run_folder)
    if not run.split.test:
        raise RunError(f"{run_folder} has no test images. Pass a fold of an evaluation: EVALUATION/seed-1/fold-0.")
    dataset = scan(run.data_dir)
    images = load_dataset(dataset, run.input_size, run.interpolation)
    calibration = weights.calibration_images(run, dataset, images)
    test, labels = images[dataset.indices_of(run.split.test)], dataset.labels_of(run.split.test)
    settings = WorkerSettings(threads=1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        float_file = folder / WEIGHTS_FILES["onnx_fp32"]
        weights.write_onnx(graph_of(run, run.temperature), run.input_size, float_file)
        networks = {FLOAT32: load_network(folder, "onnx_fp32", settings, "cpu")}
        for name in progress((WITHOUT_CORRECTION, CORRECTED), "Quantising"):
            target = folder / name
            target.mkdir()
            int8_file = target / WEIGHTS_FILES["onnx_int8"]
            write_int8(float_file, calibration, int8_file, correct_biases=name == CORRECTED)
            networks[name] = load_network(target, "onnx_int8", settings, "cpu")
        outputs = {name: parity.outputs(network, test, 1) for name, network in networks.items()}
        times = time_in_turns(list(networks.values()), [run.input_size] * len(networks))
    rows = [
        compare_with_float(name, outputs[name], outputs[FLOAT32], labels, times[:, number] / times[:, 0])
        for number, name in enumerate(networks)
    ]
    return Int8Comparison(len(test), run.architecture, run.input_size, tuple(rows))


def compare_with_float(
    name: str,
    outputs: Outputs,
    reference: Outputs,
    labels: NDArray[np.int64],
    relative_times: NDArray[np.float64],
) -> Int8Row:
    """Compare the outputs of one file with those of the float32 file.

    Args:
        name: of the file.
        outputs: of the file, for N images.
        reference: the same of the float32 file.
        labels: int64 [N].
        relative_times: float64 [rounds], the file's time over that of the float32 file.
    """
    classes = outputs.probabilities.argmax(1)
    difference = np.abs(outputs.probabilities - reference.probabilities)
    scores, reference_scores = outputs.ood_scores, reference.ood_scores
    ood_difference = None
    if scores is not None and reference_scores is not None:
        ood_difference = float(np.abs(scores - reference_scores).mean())
    return Int8Row(
        name=name,
        changed=int((classes != reference.probabilities.argmax(1)).sum()),
        wrong=int((classes != labels).sum()),
        mean_difference=float(difference.mean()),
        largest_difference=float(difference.max()),
        ood_difference=ood_difference,
        relative_time=float(np.median(relative_times)),
    )
