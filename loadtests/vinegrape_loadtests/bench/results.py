"""Measurements, and the ratios that are computed from them."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Numbers of connections at which a server with two workers is always busy
FULL = (16, 64)

# Names of our servers: `vinegrape serve`, the same with its edge, and the second one's TorchServe, reached directly
PLAIN, EDGE, BEHIND_EDGE = "vinegrape", "vinegrape --edge", "behind the edge"
OURS = (PLAIN, EDGE)


@dataclass(frozen=True)
class Measurement:
    """One load on one server.

    Attributes:
        round: everything is measured once per round; ratios compare measurements of the same round.
        server: one of `OURS`, a peer, "ceiling" for the same work without a server, or `BEHIND_EDGE`.
        workload: name of the workload.
        transport: "rest", "grpc" or "process".
        mode: "closed"; for an open loop its arrivals, "even" or "poisson"; "alternating" for requests that are sent in
            turn through the edge and directly to TorchServe behind it.
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

    @property
    def overhead_cpu_ms(self) -> float:
        """CPU ms per request of all processes beyond the handler's functions."""
        return sum(self.cpu_ms.values()) - self.handler_cpu_ms


@dataclass(frozen=True)
class Results:
    """The results of one run of the benchmark.

    Attributes:
        machine: description of the machine.
        versions: versions of the software, by name.
        options: options of the run.
        start_s: seconds from `vinegrape serve` to the first correct response, for each start.
        memory_mib: PSS by kind of process, after the warm-up.
        edge_memory_mib: the same of the server with the edge; empty if it is not measured.
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
    edge_memory_mib: dict[str, float] = field(default_factory=dict)

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

    def ratio(self, server: str, workload: str = "png", transport: str = "rest", ours: str = PLAIN) -> float | None:
        """Return our requests per second divided by a server's over REST; None if not measured.

        It is the median of all rounds.

        Args:
            server: the other server.
            workload: name of the workload.
            transport: "rest" or "grpc", for our server.
            ours: which of our servers.
        """
        rates = self.rates(ours, workload, transport)
        theirs = self.rates(server, workload, "process" if server == "ceiling" else "rest")
        return _median(rates[r] / theirs[r] for r in rates.keys() & theirs.keys() if theirs[r])

    def at_16(self, server: str, transport: str) -> list[Measurement]:
        """Return the measurements of the PNG with 16 connections, in which CPU time per request is compared."""
        return self.select(server=server, workload="png", transport=transport, mode="closed", load=FULL[0])

    def overhead_cpu_ms(self, transport: str, server: str = PLAIN) -> float | None:
        """Return the CPU ms per request of all processes beyond the handler's functions, at 16 connections."""
        return _median(m.overhead_cpu_ms for m in self.at_16(server, transport))

    def grpc_cpu_ms(self, server: str) -> float | None:
        """Return how much more CPU time a request takes over gRPC than over REST, at 16 connections."""
        rest = {m.round: m.overhead_cpu_ms for m in self.at_16(server, "rest")}
        return _median(m.overhead_cpu_ms - rest[m.round] for m in self.at_16(server, "grpc") if m.round in rest)

    def edge_cpu_ms(self) -> float | None:
        """Return the CPU ms per request of the edge itself, over REST, at 16 connections."""
        return _median(m.cpu_ms.get("edge", 0) for m in self.at_16(EDGE, "rest"))

    def edge_latency_ms(self) -> float | None:
        """Return how much higher the median latency is through the edge than directly, while nothing else runs."""
        direct = {m.round: m.latency_ms["50"] for m in self.select(server=BEHIND_EDGE, mode="alternating")}
        through = self.select(server=EDGE, mode="alternating")
        return _median(m.latency_ms["50"] - direct[m.round] for m in through if m.round in direct)

    def in_process_ms(self) -> float | None:
        """Return the median latency of one process without a server, while nothing else runs."""
        return _median(m.latency_ms["50"] for m in self._single_process())

    def idle_overhead_ms(self) -> float | None:
        """Return how much higher the median latency is on one connection than without a server."""
        alone = {m.round: m.latency_ms["50"] for m in self._single_process()}
        served = self.select(server=PLAIN, workload="png", transport="rest", mode="closed", load=1)
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
