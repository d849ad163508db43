"""One real run of Locust, and its reports."""

import csv
import json
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from vinegrape_loadtests.local_run import locust_command

# Far above the latency of a correct server on a busy machine
PATIENT = ("--p95-ms", "8000", "--p99-ms", "9000", "--min-right-answers", "1")


@dataclass
class LocustRun:
    """Exit code, output and reports of a run."""

    code: int
    output: str
    report: Path

    @property
    def requests(self) -> dict[tuple[str, str], int]:
        """Number of requests by type and name, from the CSV."""
        return {(row["Type"], row["Name"]): int(row["Request Count"]) for row in self._rows("stats")}

    @property
    def total(self) -> int:
        """Number of all requests."""
        return self.requests[("", "Aggregated")]

    @property
    def failures(self) -> dict[str, int]:
        """Number of failures by message, from the CSV."""
        failures = Counter[str]()
        for row in self._rows("failures"):
            failures[row["Error"]] += int(row["Occurrences"])
        return failures

    @property
    def latencies_ms(self) -> dict[int, int]:
        """Number of requests by latency, rounded to two digits: the histogram from which Locust takes percentiles."""
        samples: dict[int, int] = {}
        for entry in json.loads(self.report.with_suffix(".json").read_text()):
            for latency_ms, count in entry["response_times"].items():
                samples[int(latency_ms)] = samples.get(int(latency_ms), 0) + count
        return samples

    @property
    def verdict(self) -> str:
        """The last line of the output."""
        return self.output.strip().splitlines()[-1]

    def _rows(self, kind: str) -> list[dict[str, str]]:
        with self.report.with_name(f"report_{kind}.csv").open(newline="") as file:
            return list(csv.DictReader(file))


def run_locust(folder: Path, host: str, *options: str) -> LocustRun:
    """Run the load test against a host, headless, with every kind of report."""
    report = folder / "report"
    process = subprocess.run(
        [*locust_command(report), "--json-file", str(report), "--host", host, *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return LocustRun(process.returncode, process.stdout, report)
