"""`vinegrape fuzz`: change valid images at random, for `decode` and for a server that it starts."""

from __future__ import annotations

import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vinegrape_loadtests.packages import require_packages
from vinegrape_server.host.machine import count_cores

if TYPE_CHECKING:
    from vinegrape_loadtests.fuzz.failures import Failures
    from vinegrape_loadtests.local.server import Server

_CLIENTS = 8


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--images", type=click.IntRange(0), default=50_000, show_default=True,
              help="Changed images for `decode`.")  # fmt: skip
@click.option("--requests", type=click.IntRange(0), default=5_000, show_default=True,
              help="Changed images for a live server, over REST and gRPC in equal parts.")  # fmt: skip
@click.option("--seed", type=int, help="Equal seeds give equal images.  [default: a new one]")
@click.option("--processes", type=click.IntRange(1), default=count_cores, show_default="one per core",
              help="Processes that decode at the same time.")  # fmt: skip
@click.option("--pixels", type=click.IntRange(1), default=1_000_000, show_default=True,
              help="The largest number of pixels of an image; more make it slower.")  # fmt: skip
@click.option("--edge/--no-edge", default=False, show_default=True,
              help="Send the requests through the edge, which needs HAProxy.")  # fmt: skip
@click.option("--archive", type=click.Path(path_type=Path, exists=True), default="model_store/vinegrape.mar",
              show_default=True, help="The archive whose weights are served, with the installed code.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default="runs/fuzz", show_default=True,
              help="Folder for images with which something was wrong, and for logs. It is emptied first.")  # fmt: skip
def fuzz(
    files: tuple[Path, ...],
    images: int,
    requests: int,
    seed: int | None,
    processes: int,
    pixels: int,
    edge: bool,
    archive: Path,
    output: Path,
) -> None:
    """Change valid images at random, and check what becomes of them.

    First, several processes decode them. With Atheris (pip install atheris), the changes are guided by the lines of
    code that they reach. Then a server gets others over REST and gRPC, and valid images beside them. The exit code is 1
    if a process crashes, hangs or grows; if an exception or a status is not one of those in docs/api.md; if an image is
    read although its header is destroyed; or if a valid image does not get its right answer.

    With FILES, it only decodes these files, and prints what comes of each.

    \b
    vinegrape fuzz                                   some minutes
    vinegrape fuzz --images 2000 --requests 0 --seed 7
    vinegrape fuzz runs/fuzz/failures/*.bin          try images again
    """
    if files:
        sys.exit(_try_again(files, pixels))
    require_packages("fuzz", ("model_archiver",), "train")
    from vinegrape_loadtests.fuzz.failures import Failures

    seed = random.SystemRandom().randrange(10**6) if seed is None else seed
    shutil.rmtree(output, ignore_errors=True)
    failures = Failures(output / "failures")
    click.echo(f"Seed: {seed}")
    problems = Counter[str]()
    if images:
        problems += _fuzz_decode(images, seed, processes, pixels, output)
    if requests:
        problems += _fuzz_server(requests, seed, pixels, edge, archive, output, failures)
    saved = failures.list()
    for path, problem in saved:
        click.echo(f"{problem}\n    vinegrape fuzz {path}")
    if saved or problems:
        counts = ", ".join(f"{count} x {name}" for name, count in problems.items())
        raise click.ClickException(f"{len(saved)} images were saved. {counts}".strip())
    click.echo("Nothing was wrong.")


def _try_again(files: tuple[Path, ...], pixels: int) -> int:
    """Decode files and print what comes of each; return 1 if something is wrong with one, else 0."""
    from vinegrape_handler.images.decode import Limits
    from vinegrape_handler.settings import WorkerSettings
    from vinegrape_loadtests.fuzz.checks import Violation, check_destroyed, outcome

    limits, code = Limits(WorkerSettings().max_image_bytes, pixels), 0
    for file in files:
        try:
            click.echo(f"{file}: status {outcome(file.read_bytes(), limits)}")
            check_destroyed(file.read_bytes(), limits)
        except Violation as error:
            click.echo(f"{file}: {error}")
            code = 1
    return code


def _fuzz_decode(images: int, seed: int, processes: int, pixels: int, output: Path) -> Counter[str]:
    from vinegrape_loadtests.fuzz.decode_run import fuzz_decode

    start = time.monotonic()
    with click.progressbar(length=images, label="decode", file=sys.stderr) as bar:
        run = fuzz_decode(images, seed, processes, pixels, output, lambda done: bar.update(done - bar.pos))
    click.echo(
        f"decode: {run.images} images in {time.monotonic() - start:.0f} s; {_format(run.counts)}; at most "
        f"{run.peak_mib:.0f} MiB in a process"
    )
    return run.problems


def _fuzz_server(
    requests: int, seed: int, pixels: int, edge: bool, archive: Path, output: Path, failures: Failures
) -> Counter[str]:
    from vinegrape_handler.images.decode import Limits
    from vinegrape_handler.settings import WorkerSettings
    from vinegrape_loadtests.fuzz.server_run import fuzz_server

    limits = Limits(WorkerSettings().max_image_bytes, pixels)
    start = time.monotonic()
    with _server(archive, pixels, edge, output) as (server, log):
        with click.progressbar(length=requests, label="server", file=sys.stderr) as bar:
            run = fuzz_server(server, requests, seed, _CLIENTS, limits, failures, lambda: bar.update(1))
        server.wait_until_ready()
        lines = log.read_text(errors="replace").splitlines()
    click.echo(
        f"server: {run.counts.total()} images in {time.monotonic() - start:.0f} s; {_format(run.counts)}; "
        f"{run.neighbours} valid images answered right; {len(lines)} lines in its log"
    )
    tracebacks = sum("Traceback" in line or "Exception" in line for line in lines)
    return run.problems + Counter({f"traceback in {log}": tracebacks})


@contextlib.contextmanager
def _server(archive: Path, pixels: int, edge: bool, output: Path) -> Iterator[tuple[Server, Path]]:
    """Start a server with the weights of an archive and the installed code of the handler; yield it and its log."""
    from vinegrape_handler.weights import available_backends
    from vinegrape_loadtests.local.server import serving
    from vinegrape_training.export.archive import build, opened

    output.mkdir(parents=True, exist_ok=True)
    log = output / "server.log"
    with tempfile.TemporaryDirectory(prefix="vinegrape-fuzz-") as folder, log.open("wb") as file:
        with opened(archive) as export:
            build(export, Path(folder) / "vinegrape.mar", available_backends(export))
        options = ("--archive", f"{folder}/vinegrape.mar", "--max-image-pixels", str(pixels), "--batch-size", "8",
                   "--max-batch-delay-ms", "5", *(("--edge", "--no-access-log") if edge else ()))  # fmt: skip
        with serving(*options, stdout=file, stderr=file) as server:
            yield server, log


def _format(counts: Counter[Any]) -> str:
    return ", ".join(f"{name}: {counts[name]}" for name in sorted(counts))
