"""Measurements, and the ratios that are computed from them."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Numbers of connections at which a server with two workers is always busy
FULL = (16, 64)


@dataclass(frozen=True)
class Measurement:
    """One load on one server.

    Attributes:
        round: everything is measured once per round; ratios compare measurements of the same round.
        server: "vinegrape", a peer, or "ceiling" for the same work without a server.
        workload: name of the workload.
        transport: "rest", "grpc" or "process".
        mode: "closed"; for an open loop its arrivals, "even" or "poisson".
        load: number of connections of a closed loop, number of processes of the ceiling; for an open loop, its rate as
            a part of the highest closed-loop rate.
        requests: number of requests with a response.
        seconds: duration.
        failed: number of requests without a response, or with another status than success.
        latency_ms: percentiles, by "50", "90", "99" and "99.9".
        cpu_ms: CPU ms per request, by kind of process.
        handler_cpu_ms: the part of it for decode, resize and network; 0 if it is not known.
        generator_cpu_ms: CPU ms of the load generator per request.
    """

    round: int
    server: str
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
        """Requests per second."""
        return self.requests / self.seconds


@dataclass(frozen=True)
class Results:
    """The results of one run of the benchmark.

    Attributes:
        machine: description of the machine.
        versions: versions of the software, by name.
        options: options of the run.
        start_s: seconds from `vinegrape serve` to the first correct response, for each start.
        memory_mib: PSS by kind of process, after the warm-up.
        measurements: measurements of all rounds.
        open_loop_ms: percentiles of all rounds, by arrivals and part of the peak, such as "even 0.7".
    """

    machine: str
    versions: dict[str, str]
    options: dict[str, Any]
    start_s: list[float]
    memory_mib: dict[str, float]
    measurements: list[Measurement]
    open_loop_ms: dict[str, dict[str, float]]

    def write(self, path: Path) -> None:
        """Write everything as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read a file that `write` wrote."""
        values = json.loads(path.read_text())
        return cls(**{**values, "measurements": [Measurement(**fields) for fields in values["measurements"]]})

    def select(self, **fields: object) -> list[Measurement]:
        """Return the measurements whose fields have these values."""
        return [m for m in self.measurements if all(getattr(m, name) == value for name, value in fields.items())]

    def rates(self, server: str, workload: str, transport: str) -> dict[int, float]:
        """Return a server's requests per second in each round, at the better of the numbers of connections in `FULL`.

        For the ceiling, the rate of all processes together.
        """
        rates: dict[int, float] = {}
        for m in self.select(server=server, workload=workload, transport=transport, mode="closed"):
            full = m.load > 1 if transport == "process" else m.load in FULL
            if full:
                rates[m.round] = max(rates.get(m.round, 0), m.rate)
        return rates

    def ratio(self, server: str, workload: str = "png", transport: str = "rest") -> float | None:
        """Return our requests per second divided by a server's: the median of all rounds; None if not measured."""
        ours = self.rates("vinegrape", workload, transport)
        theirs = self.rates(server, workload, "process" if server == "ceiling" else "rest")
        return _median(ours[r] / theirs[r] for r in ours.keys() & theirs.keys() if theirs[r])

    def overhead_cpu_ms(self, transport: str) -> float | None:
        """Return the CPU ms per request of all our processes beyond the handler's functions, at 16 connections."""
        measured = self.select(server="vinegrape", workload="png", transport=transport, mode="closed", load=FULL[0])
        return _median(sum(m.cpu_ms.values()) - m.handler_cpu_ms for m in measured)

    def in_process_ms(self) -> float | None:
        """Return the median latency of one process without a server, while nothing else runs."""
        return _median(m.latency_ms["50"] for m in self._single_process())

    def idle_overhead_ms(self) -> float | None:
        """Return how much higher the median latency is on one connection than without a server."""
        alone = {m.round: m.latency_ms["50"] for m in self._single_process()}
        served = self.select(server="vinegrape", workload="png", transport="rest", mode="closed", load=1)
        return _median(m.latency_ms["50"] - alone[m.round] for m in served if m.round in alone)

    def tail(self, arrivals: str, part: float) -> float | None:
        """Return the 99th percentile of an open loop, divided by the median latency without a server."""
        alone, percentiles = self.in_process_ms(), self.open_loop_ms.get(f"{arrivals} {part:g}", {})
        return percentiles["99"] / alone if alone and percentiles else None

    def _single_process(self) -> list[Measurement]:
        return self.select(server="ceiling", workload="png", load=1)


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.median(known) if known else None
