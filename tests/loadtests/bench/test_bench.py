"""Real runs of the benchmark: the smallest one, and nightly the command with every server."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, program
from vinegrape_loadtests.bench.bench import run_benchmark
from vinegrape_loadtests.bench.results import FULL, Measurement, Results
from vinegrape_loadtests.bench.session import BenchOptions

pytestmark = [pytest.mark.live, pytest.mark.tools, pytest.mark.xdist_group("timing")]

OPEN_LOOPS = {"even 0.5", "even 0.7", "even 0.9", "poisson 0.7"}


@pytest.fixture(scope="module")
def load_generators() -> None:
    program("wrk", "wrk")
    program("h2load", "nghttp2-client")


@pytest.fixture(scope="module")
def results(load_generators, tiny_archive) -> Results:
    """The results of `vinegrape serve` and the ceiling, with 16 connections."""
    options = BenchOptions(
        archive=tiny_archive,
        leaf=ROOT / "docs" / "leaf.png",
        workloads=("png",),
        rounds=1,
        seconds=1,
        warm_up_s=1,  # the first gRPC call can take a second
        starts=1,
        peers=False,
        connections=(16,),
    )
    return run_benchmark(options)


def loads(results: Results) -> set[tuple[str, str, str, float]]:
    return {(m.server, m.transport, m.mode, m.load) for m in results.measurements}


def assert_complete(measurements: list[Measurement]) -> None:
    """No request failed, and the CPU time of each kind of process is known."""
    for m in measurements:
        assert m.failed == 0, m
        assert m.requests, m
        assert set(m.cpu_ms) == {"Java", "worker", "supervisor"}, m
        assert 0 < m.handler_cpu_ms < sum(m.cpu_ms.values()), m


def test_the_server_and_the_ceiling_are_measured_in_closed_and_open_loops(results):
    expected = {("vinegrape", transport, "closed", 16) for transport in ("rest", "grpc")}
    expected |= {("vinegrape", "rest", "even", part) for part in (0.5, 0.7, 0.9)}
    expected |= {("vinegrape", "rest", "poisson", 0.7), ("ceiling", "process", "closed", 1)}
    assert expected <= loads(results)
    assert set(results.open_loop_ms) == OPEN_LOOPS
    assert len(results.start_s) == 1
    assert results.memory_mib.keys() == {"Java", "worker", "supervisor"}
    assert results.versions["archive"] == "tiny"
    assert " cores of " in results.machine


def test_no_request_fails_and_the_cpu_time_is_known(results):
    assert_complete(results.select(server="vinegrape"))


@pytest.mark.nightly
def test_the_command_measures_every_server(load_generators, archive, tmp_path):
    command = [str(Path(sys.executable).with_name("vinegrape")), "bench", str(tmp_path), "--archive", str(archive)]
    # 2 s are long enough for a response on each of 64 connections, and for the first gRPC call
    options = ["--rounds", "1", "--seconds", "2", "--warm-up", "2", "--starts", "1", "--workload", "png"]
    result = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    results = Results.read(tmp_path / "bench.json")
    expected = {("vinegrape", transport, "closed", load) for transport in ("rest", "grpc") for load in (1, 4, *FULL)}
    expected |= {(peer, "rest", "closed", 16) for peer in ("fastapi_same_code", "fastapi_float32", "torchserve_stock")}
    assert expected <= loads(results)
    assert_complete(results.select(server="vinegrape"))
    assert result.stdout == (tmp_path / "bench.md").read_text()
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
