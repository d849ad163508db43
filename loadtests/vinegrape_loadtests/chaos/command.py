"""`vinegrape chaos`: try faults on a server that it starts."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vinegrape_loadtests.packages import require_packages

if TYPE_CHECKING:
    from vinegrape_loadtests.chaos.row import Result, Row


@click.command()
@click.argument("names", nargs=-1, metavar="[NAMES]...")
@click.option(
    "--long", "long_form", is_flag=True, help="All faults with full counts, some 15 minutes; else a quick form."
)
@click.option("--list", "list_rows", is_flag=True, help="List the faults, and run none.")
@click.option("--edge/--no-edge", default=None,
              help="With or without HAProxy in front.  [default: with it if it is installed]")  # fmt: skip
@click.option("--archive", type=click.Path(path_type=Path, exists=True), default="model_store/vinegrape.mar",
              show_default=True, help="The archive to serve.")  # fmt: skip
@click.option(
    "--write", type=click.Path(path_type=Path, dir_okay=False), help="Write all figures to this file as JSON."
)
@click.option("--minutes", type=click.FloatRange(min=0.5), default=30, show_default=True, help="Duration of the soak.")
@click.option("-v", "--verbose", is_flag=True, help="Print what the fault's own requests got, and further figures.")
def chaos(
    names: tuple[str, ...],
    long_form: bool,
    list_rows: bool,
    edge: bool | None,
    archive: Path,
    write: Path | None,
    minutes: float,
    verbose: bool,
) -> None:
    """Try faults on a server that it starts on free ports, while good clients check each of their answers.

    NAMES are faults of --list; without any, all of the form are tried. The exit code is 1 if one fails. Everything
    stays on the loopback address, and everything that is started is ended.

    \b
    vinegrape chaos                              the quick ones, less than a minute
    vinegrape chaos --long                       all
    vinegrape chaos workers-killed framing -v    two of them
    vinegrape chaos soak --minutes 30            a long load
    """
    require_packages("chaos", ("grpc", "numpy", "PIL"), "test")
    from vinegrape_loadtests.chaos.report import terminal_details, terminal_header, terminal_line
    from vinegrape_loadtests.chaos.row import Report
    from vinegrape_loadtests.chaos.rows import ROWS
    from vinegrape_loadtests.chaos.runner import Options, run_rows

    if list_rows:
        for row in ROWS:
            click.echo(f"{row.name:22}{'short' if row.short else '':7}{row.fault}")
        return
    rows = choose(ROWS, names, long_form)
    with_edge = shutil.which("haproxy") is not None if edge is None else edge
    # SIGTERM ends it like Ctrl-C: the server and all clients are ended too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results: list[Result] = []

    def report(result: Result) -> None:
        results.append(result)
        click.echo(terminal_line(result))
        if verbose and (details := terminal_details(result)):
            click.echo(details)

    click.echo(terminal_header())
    peak, rates = run_rows(rows, Options(archive, with_edge, long_form, minutes), report)
    from vinegrape_loadtests.bench.machine import describe_machine

    machine = describe_machine(len(os.sched_getaffinity(0)))
    outcome = Report(machine, with_edge, "long" if long_form else "short", peak, rates, results)
    if write is not None:
        outcome.write(write)
    failed = sum(result.verdict == "failed" for result in results)
    skipped = sum(result.verdict == "skipped" for result in results)
    click.echo(
        f"\n{len(results)} faults: {len(results) - failed - skipped} passed, {failed} failed, {skipped} skipped. "
        f"Peak {peak:.0f}/s; good clients {sum(rates.values()):.0f}/s."
    )
    sys.exit(0 if outcome.passed else 1)


def choose(rows: tuple[Row, ...], names: tuple[str, ...], long_form: bool) -> list[Row]:
    """Choose rows by name, or those of the form.

    Raises:
        ClickException: there is no row of a name.
    """
    unknown = set(names) - {row.name for row in rows}
    if unknown:
        raise click.ClickException(
            f"No such fault: {', '.join(sorted(unknown))}. List them with: vinegrape chaos --list"
        )
    if names:
        return [row for row in rows if row.name in names]
    return [row for row in rows if (long_form or row.short) and not row.only_by_name]
