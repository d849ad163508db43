"""The results of `vinegrape bench images`: as JSON, as a table, and the verdict."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

MAX_MS, MAX_MB = 2000, 600  # what no image may exceed

# Statuses that an image may get; `measure` has others for a process that ended
_RIGHT_STATUSES = (200, 400, 413, 415, 422)
_WORKERS = 16
_SHOWN = 3  # of each format in the table
_MB_PER_MIB = 2**20 / 10**6


@dataclass(frozen=True)
class Cost:
    """What one image, or one JSON request, costs.

    Attributes:
        format: of the image, or "JSON".
        shape: what makes it expensive.
        sent_bytes: size of the request's body.
        pixels: width times height.
        status: of the response; 0: the process ended, -1: it was not finished in time.
        message: the body of an error.
        ms: milliseconds from the body to the response.
        peak_mib: peak memory in MiB above that of the loaded worker; it contains the body.
        loaded_mib: memory in MiB of the loaded worker.
    """

    format: str
    shape: str
    sent_bytes: int
    pixels: int
    status: int
    message: str
    ms: float
    peak_mib: float
    loaded_mib: float

    @property
    def problems(self) -> list[str]:
        """What is wrong with it; empty if nothing is."""
        problems = []
        if self.status not in _RIGHT_STATUSES:
            problems.append(f"status {self.status}: {self.message}")
        if self.ms > MAX_MS:
            problems.append(f"{self.ms:.0f} ms")
        if self.peak_mib * _MB_PER_MIB > MAX_MB:
            problems.append(f"{self.peak_mib * _MB_PER_MIB:.0f} MB")
        return problems


@dataclass(frozen=True)
class WorstImageResults:
    """The results of one run.

    Attributes:
        machine: description of the machine.
        limits: the limits of the worker, by the names of their settings.
        costs: in the order in which they were measured.
    """

    machine: str
    limits: dict[str, int]
    costs: list[Cost]

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> WorstImageResults:
        """Read a file that `write` wrote."""
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**values, "costs": [Cost(**cost) for cost in values["costs"]]})

    @property
    def passed(self) -> bool:
        """Whether every image has a right status and stays within `MAX_MS` and `MAX_MB`."""
        return not any(cost.problems for cost in self.costs)

    def memory_mib(self, workers: int) -> float:
        """Return the memory in MiB of some workers, all of which have the image that needs most memory."""
        return workers * max(cost.loaded_mib + cost.peak_mib for cost in self.costs)


def terminal_header() -> str:
    """Return the header of the lines of `terminal_line`."""
    return f"{'format':8}{'shape':46}{'bytes':>12}{'pixels':>12}{'status':>8}{'ms':>9}{'peak MiB':>10}"


def terminal_line(cost: Cost) -> str:
    """Format one cost as a line."""
    line = (
        f"{cost.format:8}{cost.shape:46}{cost.sent_bytes:>12,}{cost.pixels:>12,}{cost.status:>8}{cost.ms:>9.0f}"
        f"{cost.peak_mib:>10.0f}"
    )
    return "   <- ".join([line, *(["; ".join(cost.problems)] if cost.problems else [])])


def markdown(results: WorstImageResults) -> str:
    """Format the worst of each format as a Markdown table, with a sentence on all that were tried and the verdict.

    The worst are the slowest and the largest that are accepted, and those that exceed a limit.
    """
    costs = results.costs
    refused = sum(cost.status != HTTPStatus.OK and not cost.problems for cost in costs)
    lines = [
        f"Machine: {results.machine}. Limits: {results.limits['max_image_bytes']:,} bytes, "
        f"{results.limits['max_image_pixels']:,} pixels, {results.limits['max_instances']} instances. "
        f"Of {len(costs)} shapes that were tried, {refused} are refused. The slowest and largest of the others:",
        "",
        "| format | shape | bytes sent | pixels | status | ms | peak, MiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for format_ in dict.fromkeys(cost.format for cost in costs):
        accepted = [cost for cost in costs if cost.format == format_ and cost.status == HTTPStatus.OK]
        slowest = sorted(accepted, key=lambda cost: cost.ms)[-_SHOWN:]
        largest = sorted(accepted, key=lambda cost: cost.peak_mib)[-_SHOWN:]
        failed = [cost for cost in costs if cost.format == format_ and cost.problems]
        shown = dict.fromkeys([*failed, *slowest, *largest])
        lines += [_row(cost) for cost in sorted(shown, key=lambda cost: -cost.ms)]
    return "\n".join([*lines, "", verdict(results)])


def _row(cost: Cost) -> str:
    status = f"**{cost.status}**" if cost.problems else str(cost.status)
    return (
        f"| {cost.format} | {cost.shape} | {cost.sent_bytes:,} | {cost.pixels:,} | {status} | {cost.ms:,.0f} | "
        f"{cost.peak_mib:,.0f} |"
    )


def verdict(results: WorstImageResults) -> str:
    """State in sentences whether the limits hold, which image is the worst, and how much memory workers need."""
    costs = results.costs
    failed = [cost for cost in costs if cost.problems]
    slowest, largest = max(costs, key=lambda cost: cost.ms), max(costs, key=lambda cost: cost.peak_mib)
    held = (
        f"No image takes more than {MAX_MS / 1000:g} s or {MAX_MB} MB."
        if not failed
        else f"{len(failed)} of {len(costs)} images take more than {MAX_MS / 1000:g} s or {MAX_MB} MB, or fail: "
        f"{'; '.join(_name(cost) for cost in failed)}."
    )
    return (
        f"{held} The slowest is {_name(slowest)}: {slowest.ms:,.0f} ms. The largest is {_name(largest)}: "
        f"{largest.peak_mib:,.0f} MiB ({largest.peak_mib * _MB_PER_MIB:,.0f} MB) above the "
        f"{largest.loaded_mib:,.0f} MiB of the loaded worker. Workers that all have the largest at the same time need "
        f"{results.memory_mib(1):,.0f} MiB (one), {results.memory_mib(2):,.0f} MiB (two) or "
        f"{results.memory_mib(_WORKERS):,.0f} MiB ({_WORKERS}); a worker decodes one image at a time on a CPU, and "
        "requests that wait are not decoded."
    )


def _name(cost: Cost) -> str:
    status = f" ({HTTPStatus(cost.status).value})" if cost.status >= 100 else ""
    return f"{cost.format} {cost.shape}{status}"
