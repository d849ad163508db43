"""One real run of Locust, and what it says."""

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT

# Far above what a busy machine makes of a right answer, far below a stand-in that is late
PATIENT = ("--p95-ms", "8000", "--p99-ms", "9000", "--min-right-answers", "1")


@dataclass
class LocustRun:
    """What a run wrote."""

    code: int
    output: str
    report: Path

    @property
    def requests(self) -> dict[tuple[str, str], int]:
        """Requests by their type and name, as in the CSV."""
        return {(row["Type"], row["Name"]): int(row["Request Count"]) for row in self._rows("stats")}

    @property
    def failures(self) -> dict[str, int]:
        """Failures by their text, as in the CSV."""
        return {row["Error"]: int(row["Occurrences"]) for row in self._rows("failures")}

    @property
    def latencies_ms(self) -> dict[int, int]:
        """Samples by their latency, to two digits: the histogram from which Locust takes its percentiles."""
        samples: dict[int, int] = {}
        for entry in json.loads(self.report.with_suffix(".json").read_text()):
            for latency_ms, count in entry["response_times"].items():
                samples[int(latency_ms)] = samples.get(int(latency_ms), 0) + count
        return samples

    @property
    def verdict(self) -> str:
        """The last line."""
        return self.output.strip().splitlines()[-1]

    def _rows(self, kind: str) -> list[dict[str, str]]:
        with self.report.with_name(f"report_{kind}.csv").open(newline="") as file:
            return list(csv.DictReader(file))


def run(folder: Path, host: str, *options: str) -> LocustRun:
    """Run the load test against a host, headless, with every report that it can write."""
    report = folder / "report"
    files = ("--csv", str(report), "--html", f"{report}.html", "--json-file", str(report))
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        "loadtests/vinegrape_loadtests/locustfile.py",
        "--headless",
        "--only-summary",
    ]
    process = subprocess.run(
        [*command, *files, "--host", host, *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return LocustRun(process.returncode, process.stdout, report)
