"""Real runs of the benchmark: the smallest one, and nightly the command with every server."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, program
from vinegrape_loadtests.bench import servers
from vinegrape_loadtests.bench.bench import run_benchmark
from vinegrape_loadtests.bench.report import report
from vinegrape_loadtests.bench.results import EDGE, FULL, PLAIN, Measurement, Results
from vinegrape_loadtests.bench.session import BenchOptions, open_session

pytestmark = [pytest.mark.live, pytest.mark.tools, pytest.mark.xdist_group("timing")]

OPEN_LOOPS = {"even 0.5", "even 0.7", "even 0.9", "poisson 0.7"}


@pytest.fixture(scope="module")
def load_generators() -> None:
    program("wrk", "wrk")
    program("h2load", "nghttp2-client")


@pytest.fixture(scope="module")
def results(load_generators, tiny_archive) -> Results:
    """The results of `vinegrape serve` with and without its edge, and of the ceiling, with 16 connections."""
    program("haproxy", "haproxy")
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


KINDS = {"Java", "worker", "gateway", "supervisor"}


def assert_complete(measurements: list[Measurement], kinds: set[str]) -> None:
    """No request failed, and the CPU time of each kind of process is known."""
    assert measurements
    for m in measurements:
        assert m.failed == 0, m
        assert m.requests, m
        assert set(m.cpu_ms) == (set() if m.mode == "alternating" else kinds), m
        assert (0 < m.handler_cpu_ms < sum(m.cpu_ms.values())) == (m.mode != "alternating"), m


def test_the_server_and_the_ceiling_are_measured_in_closed_and_open_loops(results):
    expected = {("vinegrape", transport, "closed", 16) for transport in ("rest", "grpc")}
    expected |= {("vinegrape", "rest", "even", part) for part in (0.5, 0.7, 0.9)}
    expected |= {("vinegrape", "rest", "poisson", 0.7), ("ceiling", "process", "closed", 1)}
    expected |= {("vinegrape --edge", transport, "closed", 16) for transport in ("rest", "grpc")}
    expected |= {(server, "rest", "alternating", 1) for server in ("vinegrape --edge", "behind the edge")}
    assert expected <= loads(results)
    assert set(results.open_loop_ms) == OPEN_LOOPS
    assert len(results.start_s) == 1
    assert results.memory_mib.keys() == KINDS
    assert results.edge_memory_mib.keys() == KINDS | {"edge"}
    assert results.versions["archive"] == "tiny"
    assert " cores of " in results.machine


def test_no_request_fails_and_the_cpu_time_is_known(results):
    assert_complete(results.select(server="vinegrape"), KINDS)
    assert_complete(results.select(server="vinegrape --edge"), KINDS | {"edge"})
    for m in results.select(server="vinegrape --edge", mode="closed"):
        assert m.cpu_ms["edge"] > 0, m
        assert m.cpu_ms["gateway"] > 0 or m.transport == "rest", m


def test_every_cost_of_the_edge_and_the_gateway_is_known(results):
    costs = (results.edge_cpu_ms(), results.edge_latency_ms(), results.grpc_cpu_ms(PLAIN), results.grpc_cpu_ms(EDGE))
    assert None not in costs
    assert results.ratio(PLAIN, ours=EDGE) > 0
    assert "| gRPC through the edge and the gateway |" in report(results)


def test_without_haproxy_the_edge_is_left_out_with_a_message(load_generators, tiny_archive, monkeypatch, capsys):
    monkeypatch.setattr(servers, "edge_is_installed", lambda: False)
    options = BenchOptions(tiny_archive, ROOT / "docs" / "leaf.png", ("png",), 1, 1, 0, 0, False, (16,))
    with open_session(options) as session:
        assert list(session.servers) == ["vinegrape"]
    assert "haproxy is not installed: the server with the edge is left out" in capsys.readouterr().err


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
    assert_complete(results.select(server="vinegrape"), KINDS)
    assert result.stdout == (tmp_path / "bench.md").read_text()
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")
