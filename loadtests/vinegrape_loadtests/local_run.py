"""The load test in short: users that wait for their answers, then a constant rate, on a server started for it.

    .venv/bin/python -m vinegrape_loadtests.local_run
    .venv/bin/python -m vinegrape_loadtests.local_run --host http://127.0.0.1:8080 --p95-ms 300

Options that are not its own go to Locust, both times.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from vinegrape_loadtests.local.server import serving
from vinegrape_server.settings import LOOPBACK

REPORTS = Path("loadtests/report")

# An eighth of what two quiet cores answered in the closed loop, and as many users as may wait in a hiccup
RUNS = {"closed": (), "open": ("--arrival-rate", "10", "--users", "32")}


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--host", help="Test this server instead of starting one; gRPC is at its port 7070, or --grpc-host.")
@click.argument("locust_options", nargs=-1, type=click.UNPROCESSED)
def loadtest(host: str | None, locust_options: tuple[str, ...]) -> None:
    """Run both loads; exit code 1 if a threshold of either did not hold."""
    if host:
        sys.exit(run_all(("--host", host, *locust_options)))
    with serving() as server:
        rest, grpc = server.ports["rest_port"], server.ports["grpc_port"]
        addresses = ("--host", f"http://{LOOPBACK}:{rest}", "--grpc-host", f"{LOOPBACK}:{grpc}")
        sys.exit(run_all((*addresses, *locust_options)))


def run_all(options: tuple[str, ...]) -> int:
    """Every load in turn, with a report each; gives 1 if any ended otherwise than with 0, if only by a signal."""
    codes = []
    for name, load in RUNS.items():
        report = REPORTS / name
        click.echo(f"\n{name} loop: {report}.html and {report}_*.csv")
        files = ("--html", f"{report}.html", "--csv", str(report))
        command = [
            sys.executable,
            "-m",
            "locust",
            "-f",
            "loadtests/vinegrape_loadtests/locustfile.py",
            "--headless",
            "--only-summary",
        ]
        codes.append(subprocess.run([*command, *files, *load, *options]).returncode)  # noqa: S603
    return int(any(codes))


if __name__ == "__main__":
    loadtest()
