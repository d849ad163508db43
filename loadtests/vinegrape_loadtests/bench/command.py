"""`vinegrape bench`: the measurements of serving, memory, images, training and int8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vinegrape_handler.settings import WorkerSettings
from vinegrape_loadtests.bench import WORKLOADS
from vinegrape_loadtests.packages import require_packages
from vinegrape_server.host.machine import count_cores

if TYPE_CHECKING:
    from vinegrape_loadtests.bench.results import Results
    from vinegrape_loadtests.worst_images.results import Cost, WorstImageResults

_DEFAULT = "serving"
_PACKAGES = {  # what a subcommand imports beyond the package's own dependencies
    "serving": ("fastapi", "matplotlib", "model_archiver", "timm", "torch", "uvicorn"),
    "training": ("hydra", "lightning", "timm", "torch", "torchvision"),
    "int8": ("hydra", "lightning", "onnx", "timm", "torch"),
}


class _BenchGroup(click.Group):
    """A group that runs `serving` if the first argument is not the name of a subcommand."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the default subcommand."""
        if not args or args[0] not in {*self.commands, *ctx.help_option_names}:
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_BenchGroup)
def bench() -> None:
    """Measure serving, memory, worst images, training and int8.

    Run it on a machine that does nothing else. Without a subcommand it runs `serving`.

    \b
    vinegrape bench                       the same as: vinegrape bench serving
    vinegrape bench serving --help        its options
    """


@bench.command()
@click.argument("output", type=click.Path(path_type=Path, file_okay=False), default="runs/bench")
@click.option("--archive", type=click.Path(path_type=Path, exists=True), default="model_store/vinegrape.mar",
              show_default=True, help="The archive to serve.")  # fmt: skip
@click.option("--leaf", type=click.Path(path_type=Path, exists=True), default="docs/leaf.png", show_default=True,
              help="The PNG to send; the JPEG is made from it.")  # fmt: skip
@click.option("--workload", "workloads", multiple=True, type=click.Choice(WORKLOADS), default=WORKLOADS,
              show_default=True, help="What to send; repeatable. The PNG is always sent.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True,
              help="How often everything is measured.")  # fmt: skip
@click.option("--seconds", type=click.IntRange(1, 600), default=6, show_default=True,
              help="Duration of each measurement.")  # fmt: skip
@click.option("--warm-up", type=click.IntRange(0, 600), default=20, show_default=True,
              help="Seconds of load on each server before the first measurement.")  # fmt: skip
@click.option("--starts", type=click.IntRange(0, 50), default=5, show_default=True,
              help="How many starts of the server are timed.")  # fmt: skip
@click.option("--peers/--no-peers", default=True, show_default=True,
              help="Also measure FastAPI and TorchServe's own handler.")  # fmt: skip
def serving(
    output: Path,
    archive: Path,
    leaf: Path,
    workloads: tuple[str, ...],
    rounds: int,
    seconds: int,
    warm_up: int,
    starts: int,
    peers: bool,
) -> None:
    """Measure throughput, latency and CPU time of serving.

    It writes OUTPUT/bench.json, bench.md and bench.png, and takes half an hour with the default options. It measures
    in turn, in several rounds: the handler's functions without a server (the ceiling), `vinegrape serve` over REST and
    gRPC in closed and open loops, and other servers with the same network. It needs the programs wrk and h2load.

    \b
    vinegrape bench serving
    vinegrape bench serving /tmp/quick --rounds 1 --seconds 3 --warm-up 5 --starts 1
    """
    require_packages("bench serving", _PACKAGES["serving"], "train,bench")
    from vinegrape_loadtests.bench.bench import run_benchmark
    from vinegrape_loadtests.bench.session import BenchOptions

    results = run_benchmark(BenchOptions(archive, leaf, workloads, rounds, seconds, warm_up, starts, peers))
    click.echo(write_results(results, output))
    click.echo(
        f"\nThe report is also in {output}/bench.md, all measurements in bench.json, the figure in bench.png.", err=True
    )


def write_results(results: Results, output: Path) -> str:
    """Write bench.json, bench.md and bench.png to a folder; return the report in Markdown."""
    from vinegrape_loadtests.bench.plot import draw
    from vinegrape_loadtests.bench.report import report

    output.mkdir(parents=True, exist_ok=True)
    results.write(output / "bench.json")
    draw(results, output / "bench.png")
    text = report(results)
    (output / "bench.md").write_text(text + "\n")
    return text


@bench.command()
@click.option("--connections", type=click.IntRange(1, 200), default=16, show_default=True,
              help="Clients that send requests at the same time.")  # fmt: skip
@click.option("--seconds", type=click.IntRange(1, 600), default=10, show_default=True,
              help="Duration of the load, for each kind of request.")  # fmt: skip
@click.option("--image", type=click.Path(path_type=Path, exists=True), default="docs/leaf.png", show_default=True,
              help="A usual image.")  # fmt: skip
@click.option("--edge/--no-edge", envvar="VINEGRAPE_EDGE", show_default=True, default=False,
              help="Send all requests through the edge, which needs HAProxy.")  # fmt: skip
def memory(connections: int, seconds: int, image: Path, edge: bool) -> None:
    """Measure the server's peak memory under load.

    A container's memory limit must be higher than the peak. The command starts `vinegrape serve` with the settings of
    the environment, and sends the image, a photo, and the largest requests that the settings allow. Numbers are MiB of
    PSS: a page that n processes share counts 1 / n in each. The edge may refuse a part of the requests with status 429,
    because it limits how many large requests it holds. The exit code is 1 if a response was neither 200 nor 429, or if
    none was 200: then the load was too high, and its peak means nothing.

    As k8s/base runs it:

    \b
    VINEGRAPE_WORKERS=2 VINEGRAPE_MAX_IMAGE_BYTES=10000000 \\
    JAVA_TOOL_OPTIONS='-XX:ActiveProcessorCount=2 -Xmx512m -XX:MaxDirectMemorySize=256m' \\
    vinegrape bench memory --edge
    """
    from vinegrape_loadtests.memory import format_header, format_row, measure_memory

    click.echo(format_header())
    incomplete = []
    for row in measure_memory(connections, seconds, image.read_bytes(), edge=edge):
        click.echo(format_row(row))
        if not row.complete:
            incomplete.append(row.name)
    if incomplete:
        raise click.ClickException(f"A request failed, or all were refused: {', '.join(incomplete)}.")


@bench.command()
@click.option("--only", default="", metavar="TEXT",
              help="Measure only images whose format and shape contain this text.")  # fmt: skip
@click.option("--archive", type=click.Path(path_type=Path, exists=True), default="model_store/vinegrape.mar",
              show_default=True, help="The archive whose weights are used, with the installed code.")  # fmt: skip
@click.option("--timeout-s", type=click.FloatRange(min=0.1), default=20, show_default=True,
              help="Seconds after which an image is given up.")  # fmt: skip
@click.option("--write", type=click.Path(path_type=Path, dir_okay=False),
              help="Write all results to this file as JSON.")  # fmt: skip
def images(only: str, archive: Path, timeout_s: float, write: Path | None) -> None:
    """Measure what the worst images cost a worker.

    It draws the most expensive images and JSON requests that the limits of the environment (VINEGRAPE_MAX_IMAGE_BYTES,
    VINEGRAPE_MAX_IMAGE_PIXELS, VINEGRAPE_MAX_INSTANCES) allow, for each format and many shapes. Each goes through the
    handler in a process of its own. Peak memory is the resident memory above that of the loaded worker; it contains the
    request's body. The exit code is 1 if an image takes more than 2 s or 600 MB, or gets a wrong status. It takes
    several minutes and about 4 GB of memory, mostly for drawing.

    \b
    vinegrape bench images --write docs/performance/worst_images.json
    vinegrape bench images --only JPEG
    """
    from vinegrape_loadtests.local.server import unpacked
    from vinegrape_loadtests.worst_images.measure import measure_images, worst_images
    from vinegrape_loadtests.worst_images.results import terminal_header, terminal_line, verdict

    settings = WorkerSettings.from_environment()
    chosen = [image for image in worst_images(settings) if only in f"{image.format} {image.shape}"]
    if not chosen:
        raise click.ClickException(f"No image has {only!r} in its format and shape.")
    costs = []
    click.echo(terminal_header())
    with unpacked(archive) as folder:
        for cost in measure_images(chosen, folder, timeout_s):
            click.echo(terminal_line(cost))
            costs.append(cost)
    results = worst_image_results(settings, costs)
    if write is not None:
        results.write(write)
    click.echo(f"\n{verdict(results)}")
    if not results.passed:
        raise click.ClickException("An image exceeds a limit or got a wrong status; see above.")


def worst_image_results(settings: WorkerSettings, costs: list[Cost]) -> WorstImageResults:
    """Add the machine and the limits to the costs."""
    from vinegrape_loadtests.bench.machine import describe_machine
    from vinegrape_loadtests.worst_images.results import WorstImageResults

    names = ("max_image_bytes", "max_image_pixels", "max_instances")
    limits = {name: getattr(settings, name) for name in names}
    return WorstImageResults(describe_machine(count_cores()), limits, costs)


@bench.command()
@click.option("--rounds", type=click.IntRange(1, 1000), default=8, show_default=True,
              help="Steps of each variant, after one step of warm-up.")  # fmt: skip
@click.argument("overrides", nargs=-1)
def training(rounds: int, overrides: tuple[str, ...]) -> None:
    """Measure what makes a training step fast.

    It prints the speed of a step without any optimisation, then with one after the other. OVERRIDES are those of
    `vinegrape train`.

    \b
    vinegrape bench training --rounds 5 input_size=160
    """
    require_packages("bench training", _PACKAGES["training"], "train,bench")
    from vinegrape_training.experiments.step_speed import measure_step_speed

    click.echo(measure_step_speed(rounds, overrides).table())


@bench.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
def int8(run_folder: Path) -> None:
    """Measure accuracy and speed of int8 weights.

    It quantises the network of RUN with and without corrected biases. RUN is the folder of a training run, or of a fold
    of an evaluation. It must have test images.

    \b
    vinegrape bench int8 runs/evaluation/seed-0/fold-0
    """
    require_packages("bench int8", _PACKAGES["int8"], "train,bench")
    from vinegrape_training.experiments.quantisation import measure_int8

    click.echo(measure_int8(run_folder).table())
