"""`vinegrape bench serving`: one run of the benchmark."""

from __future__ import annotations

from vinegrape_loadtests.bench import closed_loop
from vinegrape_loadtests.bench.closed_loop import percentiles
from vinegrape_loadtests.bench.machine import describe_machine, software_versions
from vinegrape_loadtests.bench.measure import measure_starts
from vinegrape_loadtests.bench.results import EDGE, OURS, PLAIN, Results
from vinegrape_loadtests.bench.rounds import measure_rounds
from vinegrape_loadtests.bench.session import BenchOptions, open_session
from vinegrape_loadtests.local.processes import pss_mib
from vinegrape_server.host.machine import count_cores


def run_benchmark(options: BenchOptions) -> Results:
    """Measure starts, memory, throughput and latency.

    Raises:
        ClickException: a load generator is missing, a server does not start, or its response is wrong.
    """
    closed_loop.check_programs()
    start_s = measure_starts(options.archive, options.leaf.read_bytes(), options.starts)
    with open_session(options) as session:
        memory_mib = {name: _memory_by_kind(server.pid) for name, server in session.servers.items() if name in OURS}
        measure_rounds(session)
        return Results(
            machine=describe_machine(count_cores()),
            versions=software_versions(session.folder),
            options={**vars(options), "archive": options.archive.name, "leaf": options.leaf.name},
            start_s=start_s,
            memory_mib=memory_mib[PLAIN],
            edge_memory_mib=memory_mib.get(EDGE, {}),
            measurements=session.measurements,
            open_loop_ms={name: percentiles(latencies) for name, latencies in session.open_loop_ms.items()},
        )


def _memory_by_kind(pid: int) -> dict[str, float]:
    """Return the PSS in MiB of a process and its descendants, by kind."""
    memory_mib: dict[str, float] = {}
    for kind, mib in pss_mib(pid):
        memory_mib[kind] = memory_mib.get(kind, 0) + mib
    return memory_mib
