"""What int8 costs in answers and saves in time: `python -m vinegrape_training.experiments.quantisation RUN`."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import numpy as np
from rich.console import Console
from rich.progress import track

from vinegrape_handler.errors import VinegrapeError
from vinegrape_handler.networks import Network, load_network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import WEIGHTS_FILES
from vinegrape_training.data.dataset import load_dataset, scan
from vinegrape_training.experiments.timing import time_in_turns
from vinegrape_training.export import parity, weights
from vinegrape_training.export.graph import ServingGraph
from vinegrape_training.export.weights import calibration_images
from vinegrape_training.fit.run import Run

SHARES = (0.0, 0.05, weights.FLOAT_SHARE, 0.5)


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
def main(run_folder: Path) -> None:
    """Quantise the network of RUN with more and less of it left float, and compare each file with the float one.

    RUN is a training run, or a fold of an evaluation. Differences are those of probabilities, on the run's test
    images, which set no range; times are of one image on one thread, taken in turns.
    """
    try:
        run = Run.read(run_folder)
        dataset = scan(run.data_dir)
    except VinegrapeError as error:
        raise click.ClickException(str(error)) from error
    if not run.split.test:
        raise click.ClickException(f"{run_folder} kept no image aside to test with; give a fold of an evaluation.")
    images = load_dataset(dataset, run.input_size, run.interpolation)
    calibration = images[calibration_images(run, dataset)]
    test, labels = images[dataset.indices_of(run.split.test)], dataset.labels_of(run.split.test)
    graph = ServingGraph(run.load_model(), run.mean, run.std, run.temperature).eval()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        weights.write_onnx(graph, run.input_size, folder / WEIGHTS_FILES["onnx_fp32"])
        loaded: list[Network] = [load_network(folder, "onnx_fp32", WorkerSettings(threads=1), "cpu")]
        for share in track(SHARES, "Quantising", console=Console(stderr=True), transient=True):
            target = folder / str(share)
            target.mkdir()
            int8 = target / WEIGHTS_FILES["onnx_int8"]
            weights.write_int8(folder / WEIGHTS_FILES["onnx_fp32"], calibration, int8, share)
            loaded.append(load_network(target, "onnx_int8", WorkerSettings(threads=1), "cpu"))
        answers = [parity.run(network, test, 1) for network in loaded]
        times = time_in_turns(loaded, [run.input_size] * len(loaded))
    click.echo(f"{len(test)} images, {run.architecture} at {run.input_size} px")
    click.echo("| stays float | other answers | wrong | mean difference | largest | time over float32's |")
    click.echo("|---|---|---|---|---|---|")
    for number, name in enumerate(["everything", *(f"{share:.0%} of the convolutions" for share in SHARES)]):
        difference = np.abs(answers[number] - answers[0])
        others = int((answers[number].argmax(1) != answers[0].argmax(1)).sum())
        wrong = int((answers[number].argmax(1) != labels).sum())
        ratio = np.median(times[:, number] / times[:, 0])
        click.echo(f"| {name} | {others} | {wrong} | {difference.mean():.4f} | {difference.max():.3f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
