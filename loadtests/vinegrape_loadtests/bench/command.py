"""`vinegrape bench`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from vinegrape_loadtests.bench import WORKLOADS

_NEEDED = ("fastapi", "grpc_tools", "matplotlib", "torch", "uvicorn")


@click.command()
@click.argument("output", type=click.Path(path_type=Path, file_okay=False), default="runs/bench")
@click.option("--archive", type=click.Path(path_type=Path, exists=True), default="model_store/vinegrape.mar",
              show_default=True)  # fmt: skip
@click.option("--leaf", type=click.Path(path_type=Path, exists=True), default="docs/leaf.png", show_default=True,
              help="The PNG that is asked about; a JPEG is made of it.")  # fmt: skip
@click.option("--workload", "workloads", multiple=True, type=click.Choice(WORKLOADS), default=WORKLOADS,
              show_default=True, help="What is asked, beside the PNG; may be given more than once.")  # fmt: skip
@click.option("--rounds", type=click.IntRange(1, 100), default=5, show_default=True)
@click.option("--seconds", type=click.IntRange(1, 600), default=6, show_default=True, help="Of each measurement.")
@click.option("--warm-up", type=click.IntRange(0, 600), default=20, show_default=True, help="Seconds, of each server.")
@click.option("--starts", type=click.IntRange(0, 50), default=5, show_default=True, help="To time, of our server.")
@click.option("--peers/--no-peers", default=True, show_default=True, help="Measure FastAPI and the stock handler too.")
def bench(
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
    """Measure what serving costs, and write OUTPUT/bench.json, bench.md and bench.png. Half an hour as it is.

    In one run, each in turn and round after round: the handler's own functions in process (the ceiling), `vinegrape
    serve` over REST and gRPC, in closed and open loops, and what others serve the same network with. Run it where
    nothing else runs; needs wrk and h2load.

    \b
    vinegrape bench
    vinegrape bench /tmp/quick --rounds 1 --seconds 3 --warm-up 5 --starts 1
    """
    missing = [package for package in _NEEDED if find_spec(package) is None]
    if missing:
        raise click.ClickException(
            f"bench needs {', '.join(missing)}, which is not installed here. Run: make bench, or: pip install -c "
            "constraints.txt -e '.[train,bench]'"
        )
    from vinegrape_loadtests.bench.bench import Options
    from vinegrape_loadtests.bench.bench import bench as run
    from vinegrape_loadtests.bench.plot import draw
    from vinegrape_loadtests.bench.report import report

    results = run(Options(archive, leaf, workloads, rounds, seconds, warm_up, starts, peers))
    output.mkdir(parents=True, exist_ok=True)
    results.write(output / "bench.json")
    draw(results, output / "bench.png")
    text = report(results)
    (output / "bench.md").write_text(text + "\n")
    click.echo(text)
    click.echo(
        f"\nThe same in {output}/bench.md; bench.json has every measurement, bench.png is the picture.", err=True
    )
