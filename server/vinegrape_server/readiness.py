"""Decides whether a server is ready: whether people who send requests now get responses.

Times are counted in looks at the server, not in seconds of a clock. While a machine is suspended, or a container gets
no CPU time, nothing looks; afterwards the server is as ready as before.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

LOOKS_PER_S = 2

_MISSING_LOOKS = 3 * LOOKS_PER_S  # a worker that is killed is back after 1.5 to 2 s
_UNANSWERED_LOOKS = 3 * LOOKS_PER_S
_IDLE_LOOKS = 4 * LOOKS_PER_S  # every worker gets two self-checks in this time


class Outcome(enum.Enum):
    """What came of a request that the server has sent to itself."""

    ANSWERED = enum.auto()
    FAILED = enum.auto()
    # Refused because other requests wait. While workers finish batches, this is overload and no failure
    REFUSED = enum.auto()


@dataclass(frozen=True)
class Probe:
    """The outcome of one request that the server has sent to itself.

    Attributes:
        outcome: what came of it.
        problem: if it was not answered, what happened, such as "status 404".
    """

    outcome: Outcome
    problem: str = ""


ANSWERED = Probe(Outcome.ANSWERED)


@dataclass(frozen=True)
class WorkerState:
    """What a worker reports about itself.

    Attributes:
        finished: when it finished its last batch; None if its handler is too old to report this.
        busy: whether it is processing a batch.
    """

    finished: float | None
    busy: bool = False


@dataclass(frozen=True)
class Look:
    """One look at the server.

    Attributes:
        workers: the running workers that have passed their first self-check, by process id.
        probes: the last outcome of each probe since the previous look, by name. A probe without news is missing.
    """

    workers: Mapping[int, WorkerState]
    probes: Mapping[str, Probe] = field(default_factory=dict)


class Readiness:
    """Remembers looks at the server, and decides.

    Args:
        workers: number of planned workers.
        probes: names of the probes that must be answered.

    Attributes:
        missing_looks: number of looks since all planned workers ran.
    """

    def __init__(self, workers: int, probes: Iterable[str]) -> None:
        self.missing_looks = 0
        self._planned = workers
        self._workers: Mapping[int, WorkerState] = {}
        self._idle_looks: dict[int, int] = {}  # since the worker finished a batch
        self._still_looks = 0  # since any worker finished a batch
        self._probes = {name: Probe(Outcome.FAILED, "not answered yet") for name in probes}
        self._unanswered_looks = dict.fromkeys(self._probes, _UNANSWERED_LOOKS)

    def add(self, look: Look) -> None:
        """Add a look at the server. Call it `LOOKS_PER_S` times per second."""
        self.missing_looks = 0 if len(look.workers) >= self._planned else self.missing_looks + 1
        moved = {pid for pid, state in look.workers.items() if self._workers.get(pid) != state}
        self._still_looks = 0 if moved else self._still_looks + 1
        self._idle_looks = {pid: 0 if pid in moved else self._idle_looks.get(pid, 0) + 1 for pid in look.workers}
        self._workers = look.workers
        self._probes.update(look.probes)
        for name in self._probes:
            answered = look.probes.get(name) == ANSWERED
            self._unanswered_looks[name] = 0 if answered else self._unanswered_looks[name] + 1

    def why_not(self) -> str:
        """Return the reason why the server is not ready; empty if it is."""
        return next(self._reasons(), "")

    def _reasons(self) -> Iterator[str]:
        running = len(self._workers)
        if not running:
            yield "no worker is running"
        if self.missing_looks > _MISSING_LOOKS:
            yield f"{running} of {self._planned} workers are running"
        for name, looks in self._unanswered_looks.items():
            # A request that waits longer for its turn while workers finish batches is overload and no failure
            failed = self._probes[name].outcome is Outcome.FAILED
            if looks > _UNANSWERED_LOOKS and (failed or self._still_looks > _UNANSWERED_LOOKS):
                yield f"{name}: {self._probes[name].problem or 'no response'}"
        for pid, looks in self._idle_looks.items():
            state = self._workers[pid]
            if looks > _IDLE_LOOKS and state.finished is not None:
                what = "has worked on one batch" if state.busy else "has got no request, not even a self-check,"
                yield f"worker {pid} {what} for {looks / LOOKS_PER_S:g} s"
