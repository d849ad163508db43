"""A row of the fault table: what is done, what is claimed, and what was seen."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vinegrape_loadtests.chaos.trial import Trial

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


@dataclass(frozen=True)
class Limits:
    """What others may notice of a fault. None: reported, but not limited.

    Attributes:
        lost: requests of good clients without a right answer: connection errors, timeouts, statuses other than 200
            and 429. A fault can allow more with `Trial.allow_lost`, for example one for each worker that it kills.
        refused: requests of good clients with status 429.
        p99_ms: 99th percentile of the latency of good clients' right answers.
        not_ready_s: seconds from the fault within which `/readyz` must report it.
        recovery_s: seconds after the fault within which the server is ready and answers right.
        worker_deaths: workers that may end.
    """

    lost: int | None = 0
    refused: int | None = 0
    p99_ms: float | None = 2000
    not_ready_s: float | None = None
    recovery_s: float | None = 5
    worker_deaths: int | None = 0


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        name: on the command line and in the table.
        attack: number in the list of attacks that this table began with; 0 for a fault that is not in it.
        run: tries the fault.
        fault: what is done.
        claim: what must come of it.
        limits: what others may notice.
        limits_without_edge: the same without the edge, where TorchServe itself refuses what is too much, with 503;
            None: equal.
        short: whether the short form contains it.
        options: options of `vinegrape serve`.
        needs: "edge", "root", or a program; without it the row is skipped.
        clients: whether good clients run meanwhile.
        target: whether a server is started for it; otherwise `run` starts what it needs.
        only_by_name: whether it only runs if it is named.
    """

    name: str
    attack: int
    run: Callable[[Trial], None]
    fault: str
    claim: str
    limits: Limits = field(default_factory=Limits)
    limits_without_edge: Limits | None = None
    short: bool = False
    options: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    clients: bool = True
    target: bool = True
    only_by_name: bool = False


@dataclass(frozen=True)
class Result:
    """What was seen when a fault was tried.

    Attributes:
        name: the row's.
        attack: the row's.
        fault: the row's.
        claim: the row's.
        verdict: "passed", "failed" or "skipped".
        problems: why it failed or was skipped.
        seconds: how long it took.
        outcomes: what the fault's own requests got, and how often.
        notes: further figures.
        right: right answers to good clients.
        lost: their requests without one, see `Limits.lost`.
        refused: those with status 429.
        wrong: wrong answers.
        p99_ms: 99th percentile of their right answers' latency; None if there were none.
        not_ready_s: seconds until `/readyz` reported the fault; None if it was ok throughout.
        recovery_s: seconds from the end of the fault until the server was ready and answered right; None: unknown.
        peak_mib: the highest resident memory by kind of process.
    """

    name: str
    attack: int
    fault: str
    claim: str
    verdict: str
    problems: list[str] = field(default_factory=list)
    seconds: float = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    right: int = 0
    lost: int = 0
    refused: int = 0
    wrong: int = 0
    p99_ms: float | None = None
    not_ready_s: float | None = None
    recovery_s: float | None = None
    peak_mib: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The results of one run.

    Attributes:
        machine: description of the machine.
        edge: whether the server had the edge.
        form: "short" or "long".
        peak: right answers per second in a closed loop, before the first fault.
        rates: requests per second of the good clients, by transport.
        results: in the order of the table.
    """

    machine: str
    edge: bool
    form: str
    peak: float
    rates: dict[str, float]
    results: list[Result]

    @property
    def passed(self) -> bool:
        """Whether no row has failed."""
        return all(result.verdict != FAILED for result in self.results)

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read a file that `write` wrote."""
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**values, "results": [Result(**result) for result in values["results"]]})
