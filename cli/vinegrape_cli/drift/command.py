"""`vinegrape drift`."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from vinegrape_cli.predict.files import find_files
from vinegrape_cli.predict.local_model import predict_files
from vinegrape_cli.predict.options import archive_option, concurrency_option, paths_argument
from vinegrape_handler.errors import ArchiveError, VinegrapeError
from vinegrape_server.archive_info import ArchiveInfo
from vinegrape_server.drift.metrics import read_counts
from vinegrape_server.drift.statistic import Drift, measure_drift
from vinegrape_server.operations.worker_metrics import WorkerMetrics
from vinegrape_server.settings import MIN_DRIFT_ANSWERS

DRIFTED = 3
"""The exit code that states drift. 1 stands for an error, and 2 for a wrong command."""


@click.command()
@paths_argument
@archive_option("archive with the model and its reference; one process per core classifies")
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), help="folder for drift.json and the plots, drift.png"
)
@concurrency_option
@click.pass_context
def drift(ctx: click.Context, paths: tuple[Path, ...], archive: Path, output: Path | None, concurrency: int) -> None:
    """Compare images, and all images in folders, with the reference of a model.

    The reference holds the distributions of predictions and images that the model was evaluated with. A property has
    drifted if its score is above its threshold, as in the metrics of a server. Files that are not images are left out.

    The exit code is 0 without drift, 3 with drift, 1 after an error, and 2 if the command is wrong.

    \b
    Examples:
        vinegrape drift photos/
        vinegrape drift photos/ --archive model_store/vinegrape.mar --output drift/
    """
    if output:  # before the images are classified: matplotlib may not be installed
        from vinegrape_cli.drift.report import write_report
    info = ArchiveInfo.read(archive)
    files = list(find_files(paths))
    drifts, failed = _measure(info, files, concurrency)
    click.echo(table(drifts), nl=False)
    images = len(files) - failed
    click.echo(f"{images} images compared, {failed} files failed", err=True)
    if output:
        for path in write_report(output, info, drifts, images, failed):
            click.echo(f"Written: {path}", err=True)
    ctx.exit(DRIFTED if any(each.has_drifted for each in drifts.values()) else 0)


def table(drifts: Mapping[str, Drift]) -> str:
    """Format the drift of each property as aligned text; the largest scores compared with their thresholds first."""
    lines = [f"{'property':12}{'images':>8}{'score':>9}{'threshold':>11}"]
    for name, each in sorted(drifts.items(), key=lambda item: -item[1].score / item[1].threshold):
        mark = "  drift" if each.has_drifted else ""
        lines.append(f"{name:12}{each.answers:8}{each.score:9.3f}{each.threshold:11.3f}{mark}")
    return "\n".join(lines) + "\n"


def _measure(info: ArchiveInfo, files: list[str], concurrency: int) -> tuple[dict[str, Drift], int]:
    """Classify files as a server does, and compare its metrics with the reference. Also count the failed files.

    Raises:
        ArchiveError: the archive has no reference.
        VinegrapeError: there are too few images.
    """
    reference = info.metadata.reference
    if reference is None:
        raise ArchiveError(
            f"{info.path} has no reference, so drift cannot be measured. A model has one if it was trained with "
            "evaluation=FOLDER."
        )
    _check_number(len(files), 0)
    failed = 0
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vinegrape-")))
        bar = stack.enter_context(click.progressbar(length=len(files), file=sys.stderr, hidden=not sys.stderr.isatty()))
        results = predict_files(info.path, files, concurrency, metrics_folder=folder)
        for result in stack.enter_context(contextlib.closing(results)):
            failed += result.error is not None
            bar.update(1)
        counts = read_counts(reference, WorkerMetrics(folder).collect(), info.metadata.version)
    _check_number(len(files), failed)
    return measure_drift(reference, counts), failed


def _check_number(files: int, failed: int) -> None:
    """Check that there are enough images for a score.

    Raises:
        VinegrapeError: there are too few.
    """
    if files - failed < MIN_DRIFT_ANSWERS:
        without = f" and {failed} files that could not be classified" if failed else ""
        raise VinegrapeError(
            f"There are {files - failed} images{without}. Drift needs at least {MIN_DRIFT_ANSWERS} images."
        )
