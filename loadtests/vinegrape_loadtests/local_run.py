"""`vinegrape loadtest`: a closed loop, then an open loop, against a running server or one that it starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from vinegrape_loadtests.local.server import serving
from vinegrape_loadtests.packages import require_packages

REPORTS = Path("loadtests/report")
LOCUSTFILE = Path(__file__).with_name("locustfile.py")

# 10 requests per second are a fifth of what two cores reached in the closed loop (docs/performance.md). With 32 users,
# requests are still sent on time while the server pauses for three seconds.
LOADS = {"closed": (), "open": ("--arrival-rate", "10", "--users", "32")}


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--host", help="URL of a running server. Default: start one.")
@click.option("--edge/--no-edge", envvar="VINEGRAPE_EDGE", help="Start the server with its edge, which needs HAProxy.")
@click.argument("locust_options", nargs=-1, type=click.UNPROCESSED)
def loadtest(host: str | None, edge: bool, locust_options: tuple[str, ...]) -> None:
    """Run the load test: first a closed loop, then an open loop. The exit code is 1 if a threshold is not met.

    Closed loop: 4 users; each waits for its response. Open loop: 10 requests per second, independently of responses.
    Both send valid and invalid images over REST and gRPC, and check every response. Requests that the server refuses
    with status 429 are counted separately.

    Behind the edge, REST and gRPC share the port of --host. Without the edge, REST is on port 8080 and gRPC on 7070;
    for other ports, set --grpc-host. If the edge has API keys, set --api-key or the variable VINEGRAPE_API_KEY. If its
    certificate is not signed by a known authority, set --ca-file.

    Without --host, it starts `vinegrape serve` on free ports with the settings of the environment (VINEGRAPE_...), and
    stops it at the end. Both runs get the LOCUST_OPTIONS; they also accept the options for thresholds, which
    `locust -f loadtests/vinegrape_loadtests/locustfile.py --help` lists. Reports are written to loadtests/report/.

    \b
    vinegrape loadtest
    vinegrape loadtest --run-time 1m --p95-ms 300
    vinegrape loadtest --edge
    vinegrape loadtest --host http://127.0.0.1:8080 --users 16
    VINEGRAPE_API_KEY=... vinegrape loadtest --host https://vinegrape.example:8000
    """
    require_packages("loadtest", ("locust",), "loadtest")
    if host:
        sys.exit(run_all(("--host", host, *locust_options)))
    with serving(*(("--edge",) if edge else ())) as server:
        sys.exit(run_all(("--host", server.rest_url, "--grpc-host", server.grpc_address, *locust_options)))


def run_all(options: Sequence[str]) -> int:
    """Run every load with these options of Locust; return 1 if any run did not exit with 0, else 0."""
    codes = []
    for name, load in LOADS.items():
        report = REPORTS / name
        click.echo(f"\n{name} loop: {report}.html and {report}_*.csv")
        codes.append(subprocess.run([*locust_command(report), *load, *options]).returncode)  # noqa: S603
    return int(any(codes))


def locust_command(report: Path) -> list[str]:
    """Build the command of one headless run that writes REPORT.html and REPORT_*.csv."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    return [*command, "--html", f"{report}.html", "--csv", str(report)]
