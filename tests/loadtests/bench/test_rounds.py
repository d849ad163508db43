import pytest

from vinegrape_loadtests.bench import measure
from vinegrape_loadtests.bench.rounds import measure_rounds
from vinegrape_loadtests.bench.servers import BenchServer
from vinegrape_loadtests.bench.session import BenchOptions, Session
from vinegrape_loadtests.bench.workloads import Workload


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    """Every measurement of two rounds with three servers and two workloads, as (kind, round, ...)."""
    servers = [BenchServer("vinegrape", 0, "", grpc="host:1"), BenchServer("fastapi_same_code", 0, "")]
    servers.append(BenchServer("torchserve_stock", 0, "", opaque=True))
    workloads = [Workload("png", (b"",), (b"",)), Workload("photo", (b"",), (b"",))]
    session = Session(
        options=BenchOptions(archive=None, leaf=None, rounds=2),
        folder=None,
        workloads={workload.name: workload for workload in workloads},
        servers={server.name: server for server in servers},
        ceiling=None,
    )
    calls = []
    for kind in ("ceiling", "rest", "grpc", "open_loop"):
        monkeypatch.setattr(
            measure,
            f"measure_{kind}",
            lambda _session, round_, *labels, kind=kind: calls.append(
                (kind, round_, *(getattr(label, "name", label) for label in labels))
            ),
        )
    measure_rounds(session)
    return calls


def test_each_round_measures_the_same_in_another_order(calls):
    first, second = ([call for call in calls if call[1] == round_] for round_ in range(2))
    assert calls == first + second
    assert {(kind, *labels) for kind, _, *labels in first} == {(kind, *labels) for kind, _, *labels in second}
    assert [call[0] for call in first] != [call[0] for call in second]


def test_open_loops_come_last_because_their_rates_depend_on_the_closed_loops(calls):
    first = [call for call in calls if call[1] == 0]
    assert [call[2:] for call in first[-4:]] == [("even", 0.5), ("even", 0.7), ("even", 0.9), ("poisson", 0.7)]
    assert "open_loop" not in {call[0] for call in first[:-4]}


@pytest.mark.parametrize(
    ("kind", "server", "workload", "connections"),
    [
        ("rest", "vinegrape", "png", {1, 4, 16, 64}),
        ("rest", "vinegrape", "photo", {16}),
        ("grpc", "vinegrape", "png", {1, 4, 16, 64}),
        ("grpc", "vinegrape", "photo", set()),
        ("rest", "fastapi_same_code", "png", {1, 16, 64}),
        ("rest", "torchserve_stock", "png", {16}),
        ("rest", "torchserve_stock", "photo", set()),
    ],
)
def test_each_server_is_measured_at_its_numbers_of_connections(calls, kind, server, workload, connections):
    assert {call[-1] for call in calls if call[0] == kind and call[2:4] == (server, workload)} == connections


def test_the_ceiling_is_measured_per_workload_and_with_one_process(calls):
    assert {call[2:] for call in calls if call[0] == "ceiling"} == {("png", 1), ("png",), ("photo",)}
