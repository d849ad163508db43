"""Looks at a server, and the reason that follows from them. There are two looks per second."""

import pytest

from vinegrape_server.readiness import ANSWERED, Look, Outcome, Probe, Readiness, WorkerState

FAILED = Probe(Outcome.FAILED, "status 507")
REFUSED = Probe(Outcome.REFUSED, "status 503")


class Server:
    """A server of two workers, 1 and 2, that is looked at."""

    def __init__(self) -> None:
        self.readiness = Readiness(2, ["self-check"])
        self.finished = {1: 0.0, 2: 0.0}
        self.busy: set[int] = set()

    def look(self, times=1, *, finish=(1, 2), probe: Probe | None = ANSWERED) -> str:
        """Look at the server; before each look, some workers finish a batch. Return the reason after the last look."""
        for _ in range(times):
            for pid in finish:
                self.finished[pid] += 1
            states = {pid: WorkerState(finished, pid in self.busy) for pid, finished in self.finished.items()}
            self.readiness.add(Look(states, {"self-check": probe} if probe else {}))
        return self.readiness.why_not()


@pytest.fixture
def server() -> Server:
    return Server()


def test_a_server_is_not_ready_before_anybody_has_looked(server):
    assert server.readiness.why_not() == "no worker is running"


def test_a_server_is_ready_once_every_probe_was_answered(server):
    assert server.look(probe=None) == "self-check: not answered yet"
    assert server.look() == ""


def test_a_killed_worker_that_is_back_after_two_seconds_is_no_reason(server):
    server.look()
    del server.finished[2]
    assert server.look(4, finish=[1]) == ""
    server.finished[3] = 0
    assert server.look(20, finish=[1, 3]) == ""


def test_a_worker_that_stays_away_is_a_reason_after_three_seconds(server):
    server.look()
    del server.finished[2]
    assert server.look(6, finish=[1]) == ""
    assert server.look(1, finish=[1]) == "1 of 2 workers are running"
    assert server.readiness.missing_looks == 7


def test_without_any_worker_the_server_is_not_ready_at_once(server):
    server.look()
    server.finished.clear()
    assert server.look(finish=[]) == "no worker is running"


def test_a_worker_that_gets_nothing_is_a_reason_after_four_seconds(server):
    """Its thread in TorchServe waits for the answer to what was never sent. Self-checks pass elsewhere."""
    server.look()
    assert server.look(8, finish=[1]) == ""
    assert server.look(1, finish=[1]) == "worker 2 has got no request, not even a self-check, for 4.5 s"
    assert server.look(1) == ""


def test_a_batch_that_takes_too_long_is_a_reason_after_four_seconds(server):
    server.look()
    server.busy.add(2)
    assert server.look(9, finish=[1]) == ""
    assert server.look(1, finish=[1]) == "worker 2 has worked on one batch for 4.5 s"


def test_self_checks_that_fail_are_a_reason_after_three_seconds_although_workers_finish_batches(server):
    """As when TorchServe has no memory left for bodies, but still for smaller requests."""
    server.look()
    assert server.look(6, probe=FAILED) == ""
    assert server.look(1, probe=FAILED) == "self-check: status 507"
    assert server.look() == ""


@pytest.mark.parametrize("probe", [REFUSED, None])
def test_an_overloaded_server_is_ready_while_workers_finish_batches(server, probe):
    """Otherwise an orchestrator would send its requests to the other servers, which then are overloaded too."""
    server.look()
    assert server.look(100, probe=probe) == ""


@pytest.mark.parametrize(("probe", "problem"), [(REFUSED, "status 503"), (None, "no response")])
def test_a_queue_that_does_not_move_is_a_reason_after_three_seconds(server, probe, problem):
    server.look()
    assert server.look(6, finish=[], probe=probe) == ""
    assert server.look(1, finish=[], probe=probe) == f"self-check: {problem}"


def test_an_older_handler_does_not_report_its_batches(server):
    server.finished = {}
    states = {1: WorkerState(None), 2: WorkerState(None)}
    for _ in range(20):
        server.readiness.add(Look(states, {"self-check": ANSWERED}))
    assert server.readiness.why_not() == ""
