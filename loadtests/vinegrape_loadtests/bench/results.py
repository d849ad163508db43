"""What was measured, and the ratios that follow from it."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Connections at which a server of two workers is busy all the time
FULL = (16, 64)


@dataclass(frozen=True)
class Measurement:
    """One target, asked in one way for some seconds.

    Attributes:
        round: in which all were measured in turn; a ratio is of two of the same round.
        target: "ceiling", "vinegrape", or a peer.
        workload: by name.
        transport: "process", "rest" or "grpc".
        mode: "closed", or for an open loop "even" or "poisson", by its arrivals.
        load: connections of a closed loop, processes of the ceiling; of an open loop its part of the peak.
        requests: answered.
        seconds: that it took.
        failed: without an answer, or with one that is no success.
        latency_ms: percentiles, by "50", "90", "99" and "99.9".
        cpu_ms: of processors a request, by kind of process.
        handler_cpu_ms: the part of it that decode, resize and network took; 0 where it is not known.
        generator_cpu_ms: that asking took itself, a request.
    """

    round: int
    target: str
    workload: str
    transport: str
    mode: str
    load: float
    requests: int
    seconds: float
    failed: int
    latency_ms: dict[str, float]
    cpu_ms: dict[str, float]
    handler_cpu_ms: float
    generator_cpu_ms: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


@dataclass(frozen=True)
class Results:
    """One run of the benchmark.

    Attributes:
        machine: in words.
        versions: of what was measured, by name.
        options: of the command.
        start_s: seconds from `vinegrape serve` to the first right answer, of each start.
        memory_mib: PSS by kind of process, after the leaf's load.
        measurements: of all rounds.
        open_loop_ms: percentiles over all rounds, by arrivals and part of the peak, such as "even 0.7".
    """

    machine: str
    versions: dict[str, str]
    options: dict[str, Any]
    start_s: list[float]
    memory_mib: dict[str, float]
    measurements: list[Measurement]
    open_loop_ms: dict[str, dict[str, float]]

    def write(self, path: Path) -> None:
        """Write all of it as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read what `write` wrote."""
        values = json.loads(path.read_text())
        return cls(**{**values, "measurements": [Measurement(**each) for each in values["measurements"]]})

    def select(self, **fields: object) -> list[Measurement]:
        """The measurements whose fields have these values."""
        return [m for m in self.measurements if all(getattr(m, name) == value for name, value in fields.items())]

    def rates(self, target: str, workload: str, transport: str) -> dict[int, float]:
        """Requests a second of each round, at the better of the numbers of connections that keep a server busy."""
        rates: dict[int, float] = {}
        for m in self.select(target=target, workload=workload, transport=transport, mode="closed"):
            if transport == "process" and m.load == 1:
                continue
            if transport == "process" or m.load in FULL:
                rates[m.round] = max(rates.get(m.round, 0), m.rate)
        return rates

    def ratio(self, target: str, workload: str = "png", transport: str = "rest") -> float | None:
        """Of our requests a second to a target's, the median over all rounds; None where one was not measured."""
        ours = self.rates("vinegrape", workload, transport)
        theirs = self.rates(target, workload, "process" if target == "ceiling" else "rest")
        return _median(ours[r] / theirs[r] for r in ours.keys() & theirs.keys() if theirs[r])

    def overhead_cpu_ms(self, transport: str) -> float | None:
        """Of processors a request beyond the handler's functions, of all our processes, with 16 connections."""
        measured = self.select(target="vinegrape", workload="png", transport=transport, mode="closed", load=FULL[0])
        return _median(sum(m.cpu_ms.values()) - m.handler_cpu_ms for m in measured)

    def in_process_ms(self) -> float | None:
        """The median of one request in process, nothing else running."""
        return _median(m.latency_ms["50"] for m in self._alone())

    def idle_overhead_ms(self) -> float | None:
        """Of one request on one connection over the same in process."""
        alone = {m.round: m.latency_ms["50"] for m in self._alone()}
        served = self.select(target="vinegrape", workload="png", transport="rest", mode="closed", load=1)
        return _median(m.latency_ms["50"] - alone[m.round] for m in served if m.round in alone)

    def tail(self, arrivals: str, part: float) -> float | None:
        """The 99th percentile of an open loop, as a multiple of a request's median in process."""
        alone, percentiles = self.in_process_ms(), self.open_loop_ms.get(f"{arrivals} {part:g}", {})
        return percentiles["99"] / alone if alone and percentiles else None

    def _alone(self) -> list[Measurement]:
        return self.select(target="ceiling", workload="png", load=1)


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.median(known) if known else None
