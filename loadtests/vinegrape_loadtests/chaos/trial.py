"""One try of a fault: what the fault's function gets, and the verdict."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from vinegrape_loadtests.chaos.answers import LOST, REFUSED, RIGHT, WRONG, Answer, KnownImage
from vinegrape_loadtests.chaos.good_clients import GoodClients
from vinegrape_loadtests.chaos.row import FAILED, PASSED, Limits, Result, Row
from vinegrape_loadtests.chaos.target import Target, start_target
from vinegrape_loadtests.chaos.watch import Watch

Value = TypeVar("Value")
Output = TypeVar("Output")

_POLL_S = 0.02
_SETTLE_S = 0.5  # good clients are watched a little longer than the fault lasts
_MOST_PROBLEMS = 8  # reported per row


class Skip(Exception):
    """The fault cannot be tried here; the message says why."""


@dataclass
class Trial:
    """One try of a fault.

    Attributes:
        row: the row of the table.
        long: whether this is the long form.
        archive: the archive that servers serve.
        edge: whether servers have the edge.
        images: images with known answers.
        rates: requests per second of good clients, by transport.
        peak: right answers per second in a closed loop, measured before the first fault.
        soak_minutes: how long the soak runs.
    """

    row: Row
    long: bool
    archive: Path
    edge: bool
    images: tuple[KnownImage, ...]
    rates: dict[str, float]
    peak: float
    target: Target = field(init=False)
    watch: Watch | None = None
    clients: GoodClients | None = None
    outcomes: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    start: float = 0
    end: float = 0
    recovery_s: float | None = None
    allowed_lost: int = 0
    peak_mib: dict[str, float] = field(default_factory=dict)
    soak_minutes: float = 30
    began: float = field(default_factory=time.monotonic)

    @property
    def limits(self) -> Limits:
        """What others may notice."""
        without_edge = self.row.limits_without_edge
        return self.row.limits if self.edge or without_edge is None else without_edge

    def count(self, short: int, long: int) -> int:
        """Return a number for this form."""
        return long if self.long else short

    def require(self, condition: bool, problem: str) -> None:
        """Let the row fail with this problem if the condition does not hold."""
        if not condition and len(self.problems) < _MOST_PROBLEMS and problem not in self.problems:
            self.problems.append(problem)

    def note(self, text: str) -> None:
        """Report a further figure."""
        self.notes.append(text)

    def expect(self, outcome: str, allowed: Collection[str], what: str = "") -> None:
        """Count the outcome of one of the fault's own requests; let the row fail if it is not allowed."""
        label = f"{what}: {outcome}" if what else outcome
        self.outcomes[label] += 1
        self.require(outcome in allowed, f"{label}, not {' or '.join(sorted(allowed))}")

    def allow_lost(self, requests: int) -> None:
        """Allow good clients to lose as many requests more."""
        self.allowed_lost += requests

    def parallel(self, function: Callable[[Value], Output], values: Collection[Value]) -> list[Output]:
        """Call a function for all values at the same time, each in its own thread."""
        with ThreadPoolExecutor(max(1, len(values))) as pool:
            return list(pool.map(function, values))

    def wait_until(self, condition: Callable[[], Any], timeout_s: float) -> float | None:
        """Wait until a condition holds; return the seconds that it took, or None if it does not hold in time."""
        start = time.monotonic()
        while time.monotonic() - start < timeout_s:
            if condition():
                return time.monotonic() - start
            time.sleep(_POLL_S)
        return None

    def wait_until_not_ready(self, timeout_s: float) -> None:
        """Wait until `/readyz` has reported the fault, or for `timeout_s`."""
        watch = self.watch
        if watch is not None:
            self.wait_until(lambda: watch.not_ready_after(self.start) is not None, timeout_s)

    @contextlib.contextmanager
    def serve(
        self,
        *options: str,
        ports: Mapping[str, int] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Iterator[Target]:
        """Start a further server, without waiting for it; see `start_target`."""
        with start_target(self.archive, self.edge, *options, ports=ports, environment=environment) as target:
            yield target

    def begin(self) -> None:
        """The fault begins now."""
        self.start = time.monotonic()

    def finish(self) -> None:
        """The fault has ended. Wait until the server has recovered and good clients have their answers."""
        self.end = time.monotonic()
        limit = self.limits.recovery_s
        if self.clients is None:
            return
        if limit is None and not self.target.is_running():
            self.clients.stop()
            return
        timeout_s = (limit or 0) + 15
        if not self._recover(timeout_s):
            self.require(limit is None, f"not recovered {timeout_s:g} s after the fault")
        time.sleep(_SETTLE_S)
        self.clients.stop()

    def result(self) -> Result:
        """Compare what was seen with the limits."""
        row, limits = self.row, self.limits
        answers = self.clients.since(self.start) if self.clients is not None else []
        counts = Counter(answer.outcome for answer in answers)
        p99 = percentile_ms([answer.seconds for answer in answers if answer.outcome == RIGHT], 0.99)
        not_ready = self.watch.not_ready_after(self.start) if self.watch is not None else None
        if self.clients is not None:
            self._check_clients(answers, counts, p99)
            self.require(limits.lost is None or bool(counts[RIGHT]), "no good client got a right answer")
        if limits.not_ready_s is not None:
            self.require(not_ready is not None, "/readyz was ok throughout")
            self.require(
                (not_ready or 0) <= limits.not_ready_s, f"/readyz reported it only after {not_ready or 0:.1f} s"
            )
        if limits.recovery_s is not None and self.recovery_s is not None:
            self.require(self.recovery_s <= limits.recovery_s, f"recovered only after {self.recovery_s:.1f} s")
        if self.watch is not None:
            self.peak_mib |= self.watch.peak_mib
        return Result(
            name=row.name,
            attack=row.attack,
            fault=row.fault,
            claim=row.claim,
            verdict=FAILED if self.problems else PASSED,
            problems=self.problems,
            seconds=round(time.monotonic() - self.began, 1),
            outcomes=dict(self.outcomes.most_common()),
            notes=self.notes,
            right=counts[RIGHT],
            lost=counts[LOST],
            refused=counts[REFUSED],
            wrong=counts[WRONG],
            p99_ms=None if p99 is None else round(p99, 1),
            not_ready_s=None if not_ready is None else round(not_ready, 2),
            recovery_s=None if self.recovery_s is None else round(self.recovery_s, 2),
            peak_mib={kind: round(mib) for kind, mib in self.peak_mib.items()},
        )

    def _recover(self, timeout_s: float) -> bool:
        assert self.clients is not None  # noqa: S101
        watch = self.watch
        deadline = self.end + timeout_s
        while time.monotonic() < deadline:
            ready = watch is None or bool(watch.changes and watch.changes[-1][1] == "ok")
            if ready and self.clients.wait_for_right_answers(self.end, 0.2):
                ready_at = watch.changes[-1][0] if watch is not None else self.end
                lost = [a.due for a in self.clients.since(self.end) if a.outcome in (LOST, WRONG)]
                self.recovery_s = max([ready_at, self.end, *lost]) - self.end
                return True
            time.sleep(_POLL_S)
        return False

    def _check_clients(self, answers: list[Answer], counts: Counter[str], p99: float | None) -> None:
        limits = self.limits
        self.require(counts[WRONG] == 0, f"{counts[WRONG]} wrong answers: {details(answers, WRONG)}")
        if limits.lost is not None:
            allowed = limits.lost + self.allowed_lost
            self.require(counts[LOST] <= allowed, f"{counts[LOST]} lost, {allowed} allowed: {details(answers, LOST)}")
        if counts[LOST]:
            self.note(f"lost: {details(answers, LOST)}")
        if limits.refused is not None:
            refused = f"{counts[REFUSED]} refused, {limits.refused} allowed: {details(answers, REFUSED)}"
            self.require(counts[REFUSED] <= limits.refused, refused)
        if limits.p99_ms is not None and p99 is not None:
            self.require(p99 <= limits.p99_ms, f"p99 of others {p99:.0f} ms, {limits.p99_ms:g} allowed")


def percentile_ms(seconds: list[float], part: float) -> float | None:
    """Return a percentile in milliseconds; None if there are no values.

    Args:
        seconds: the values.
        part: 0 to 1.
    """
    if not seconds:
        return None
    ordered = sorted(seconds)
    return 1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def details(answers: list[Answer], outcome: str) -> str:
    """List transports and details of the answers with an outcome, and how often each occurs."""
    details = Counter(f"{answer.transport} {answer.detail}" for answer in answers if answer.outcome == outcome)
    return ", ".join(f"{count} x {detail}" for detail, count in details.most_common(5))
