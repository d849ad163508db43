"""Processes of the server that are killed, stopped or told to end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time

import psutil

from vinegrape_loadtests.chaos.answers import LOST, WRONG
from vinegrape_loadtests.chaos.http_client import build_request
from vinegrape_loadtests.chaos.sockets import RawResponse, connected, exchange
from vinegrape_loadtests.chaos.target import EDGE, GATEWAY, JAVA, WORKER, Target, stopped
from vinegrape_loadtests.chaos.trial import Skip, Trial
from vinegrape_server.host.processes import is_running

RESPONSE_TIMEOUT_S = 6  # of the rows in which a worker hangs; the default is longer
WORKER_BACK_S = 3
_NOT_READY_S = 5
_IN_FLIGHT = 40


def workers_killed(trial: Trial) -> None:
    """Kill one worker after the other, each time once the last one has been replaced."""
    workers, slowest = len(trial.target.processes(WORKER)), 0.0
    for _ in range(trial.count(1, 20)):
        victim = trial.target.processes(WORKER)[0]
        victim.kill()
        trial.allow_lost(1)  # the request that it held
        back = trial.wait_until(
            lambda: (
                not is_running(victim.pid)  # noqa: B023
                and trial.target.metric("vinegrape_workers_ready") >= workers
                and trial.target.probe() == "ok"
            ),
            30,
        )
        trial.require(back is not None, "a killed worker was not replaced within 30 s")
        slowest = max(slowest, back or 30)
    trial.note(f"a worker was back after {slowest:.1f} s at most")
    trial.require(slowest <= WORKER_BACK_S, f"a worker was back only after {slowest:.1f} s, {WORKER_BACK_S} allowed")


def one_worker_stopped(trial: Trial) -> None:
    """Stop one worker (SIGSTOP), so that it holds a request and never responds."""
    worker = trial.target.processes(WORKER)[0]
    trial.allow_lost(2)  # what it holds, and what TorchServe gives it before it is replaced
    _stop_until_replaced(trial, [worker])


def all_workers_stopped(trial: Trial) -> None:
    """Stop all workers (SIGSTOP)."""
    _stop_until_replaced(trial, trial.target.processes(WORKER))


def java_stopped(trial: Trial) -> None:
    """Stop Java (SIGSTOP) for some seconds."""
    _stop(trial, JAVA)


def java_killed(trial: Trial) -> None:
    """Kill Java."""
    _kill(trial, JAVA)


def gateway_stopped(trial: Trial) -> None:
    """Stop the gateway (SIGSTOP) for some seconds; REST must go on."""
    _stop(trial, GATEWAY)
    _require_rest(trial)


def gateway_killed(trial: Trial) -> None:
    """Kill the gateway; REST must go on."""
    _kill(trial, GATEWAY)
    _require_rest(trial)


def edge_stopped(trial: Trial) -> None:
    """Stop the edge (SIGSTOP) for some seconds."""
    _stop(trial, EDGE)


def edge_killed(trial: Trial) -> None:
    """Kill the edge."""
    _kill(trial, EDGE)


def group_frozen(trial: Trial) -> None:
    """Stop all processes of the server (SIGSTOP), as a suspended machine does, and continue them."""
    seconds = trial.count(3, 15)
    with stopped(trial.target.family()):
        time.sleep(seconds)
    live = trial.target.probe("/livez")
    trial.expect(live, {"ok"}, f"/livez after {seconds} s")


def terminated(trial: Trial) -> None:
    """Send SIGTERM while 40 requests are in flight; with a second SIGTERM at once, which must change nothing."""
    for name, signals in {"SIGTERM": 1, "SIGTERM twice": 2}.items():
        with trial.serve("--queue-size", "100", "--queue-wait-ms", "0") as target:
            target.server.wait_until_ready()
            responses = _terminate_in_flight(trial, target, signals)
            for response in responses:
                trial.expect(response.outcome, {"200"}, name)
            code = target.wait_for_exit(30)
            trial.require(code == 0, f"{name}: exit code {code}")


def management(trial: Trial) -> None:
    """Request TorchServe's management API on every port that a process of the server listens on."""
    ports = {connection.laddr.port for process in trial.target.family() for connection in _listening(process)}
    trial.note(f"{len(ports)} TCP ports")
    trial.require(trial.target.rest[1] in ports, "no process listens on the REST port")
    for port in sorted(ports):
        for path in ("/models", "/models/vinegrape", "/workflows"):
            request = build_request(method="GET", path=path, headers=("Connection: close",))
            response, _ = exchange(("127.0.0.1", port), request, timeout_s=3)
            trial.require(response.outcome != "200", f"port {port} answers GET {path} with {response.body[:60]!r}")
            trial.outcomes[response.outcome] += 1


def _listening(process: psutil.Process) -> list[psutil._common.pconn]:
    try:
        connections = process.net_connections("tcp")
    except psutil.Error:
        return []
    return [connection for connection in connections if connection.status == psutil.CONN_LISTEN]


def _stop_until_replaced(trial: Trial, victims: list[psutil.Process]) -> None:
    with stopped(victims):
        trial.wait_until_not_ready(_NOT_READY_S)
        replaced = trial.wait_until(
            lambda: (
                not [victim for victim in victims if victim.is_running()]
                and trial.target.metric("vinegrape_workers_ready") >= len(victims)
                and trial.target.probe() == "ok"
            ),
            RESPONSE_TIMEOUT_S + 20,
        )
    trial.require(replaced is not None, f"not replaced {RESPONSE_TIMEOUT_S + 20} s later")
    trial.note(f"replaced and ready {replaced or 0:.1f} s after the report")


def _stop(trial: Trial, kind: str) -> None:
    processes = _find(trial, kind)
    with stopped(processes):
        trial.wait_until_not_ready(_NOT_READY_S)
        time.sleep(trial.count(1, 3))


def _kill(trial: Trial, kind: str) -> None:
    (victim, *_) = _find(trial, kind)
    victim.kill()
    code = trial.target.wait_for_exit(4)
    if code is not None:
        trial.note(f"`vinegrape serve` ended with code {code}, for the orchestrator to start it again")
        trial.require(code == 1, f"`vinegrape serve` ended with code {code}, not 1")
        last = trial.target.log_tail(1)
        trial.require(last.startswith("vinegrape: "), f"the last line of its log is {last!r}")


def _find(trial: Trial, kind: str) -> list[psutil.Process]:
    processes = trial.target.processes(kind)
    if not processes:
        raise Skip(f"this server has no process of the kind {kind}")
    return processes


def _require_rest(trial: Trial) -> None:
    assert trial.clients is not None  # noqa: S101
    time.sleep(0.5)  # for the last responses
    lost = [a for a in trial.clients.since(trial.start) if a.transport == "rest" and a.outcome in (LOST, WRONG)]
    trial.require(not lost, f"{len(lost)} REST requests were lost or got a wrong answer")


def _terminate_in_flight(trial: Trial, target: Target, signals: int) -> list[RawResponse]:
    """Send all requests, send SIGTERM with the first response, and read the responses to all of them."""
    request = build_request(trial.images[0].image)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(target.rest)) for _ in range(_IN_FLIGHT)]
        for connection in connections:
            connection.send(request)
        sockets = [connection.socket for connection in connections]
        select.select(sockets, [], [], 30)
        answered = len(select.select(sockets, [], [], 0)[0])
        for number in range(signals):
            time.sleep(0.3 if number else 0)
            with contextlib.suppress(ProcessLookupError):
                os.kill(target.pid, signal.SIGTERM)
        trial.note(f"{_IN_FLIGHT - answered} were in flight")
        return [connection.response() for connection in connections]
