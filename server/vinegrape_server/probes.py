"""Sends requests to the server itself all the time, to find out whether it is live and ready."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus

from vinegrape_handler.contract import BATCH_FINISHED, BATCH_STARTED, WORKERS_READY
from vinegrape_server.host.grpc import check_call
from vinegrape_server.host.http import Address, get
from vinegrape_server.operations.worker_metrics import WorkerMetrics
from vinegrape_server.readiness import ANSWERED, LOOKS_PER_S, Look, Outcome, Probe, Readiness, WorkerState
from vinegrape_server.settings import ServeSettings
from vinegrape_server.torchserve.client import SelfCheckResult, TorchServeClient

PING_INTERVAL_S = 1
SELF_CHECK, EDGE, GATEWAY = "self-check", "edge", "gateway"

_INTERVAL_S = 1
_TIMEOUT_S = 2
_SELF_CHECK_INTERVAL_S = 2  # for each worker; TorchServe gives requests to idle workers in turn
_MAX_SELF_CHECKS = 8  # at the same time: one that is not answered does not delay the next
_GRPC_PING = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping"
# The responses to a self-check that finds a full queue or waits in it for too long. TorchServe's own is 503
_OVERLOAD = {0, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.GATEWAY_TIMEOUT}


class Prober:
    """Probes a server in threads of its own, one per kind of probe: a probe that hangs delays no other.

    Args:
        settings: the settings of the server.
        client: sends requests to TorchServe.
        worker_metrics: the workers' metrics.
        token: the token for self-checks.
        edge_headers: the headers of requests to the edge's public port.
        processes: names of the further processes: EDGE, GATEWAY.

    Attributes:
        unanswered_pings: number of the last pings to which TorchServe has not responded. One is sent every
            `PING_INTERVAL_S`. Pings are counted because the seconds of a clock also pass while this process is
            suspended.
    """

    def __init__(
        self,
        settings: ServeSettings,
        client: TorchServeClient,
        worker_metrics: WorkerMetrics,
        token: str,
        edge_headers: Mapping[str, str],
        processes: Collection[str],
    ) -> None:
        self.unanswered_pings = 0
        self._settings = settings
        self._client = client
        self._worker_metrics = worker_metrics
        self._token = token
        self._edge_headers = edge_headers
        known = {EDGE: self._get_from_edge, GATEWAY: self._call_gateway}
        probes = {name: send for name, send in known.items() if name in processes}
        self._readiness = Readiness(settings.workers, [SELF_CHECK, *probes])
        self._news: dict[str, Probe] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._self_checks = threading.Semaphore(_MAX_SELF_CHECKS)
        loops: list[tuple[float, Callable[[], None]]] = [
            (1 / LOOKS_PER_S, self._look),
            (PING_INTERVAL_S, self._ping),
            (min(_INTERVAL_S, _SELF_CHECK_INTERVAL_S / settings.workers), self._start_self_check),
            *((_INTERVAL_S, lambda name=name, send=send: self._probe(name, send)) for name, send in probes.items()),
        ]
        self._threads = [threading.Thread(target=self._repeat, args=loop, daemon=True) for loop in loops]

    def start(self) -> None:
        """Start to send probes."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Send no more probes."""
        self._ended.set()

    def why_not_ready(self) -> str:
        """Return the reason why the server is not ready; empty if it is."""
        with self._lock:
            return self._readiness.why_not()

    @property
    def missing_s(self) -> float:
        """Seconds for which fewer workers than planned have been running."""
        with self._lock:
            return self._readiness.missing_looks / LOOKS_PER_S

    def _repeat(self, interval_s: float, action: Callable[[], None]) -> None:
        wait_s = 0.0
        while not self._ended.wait(wait_s):
            start = time.monotonic()
            action()
            wait_s = max(0, start + interval_s - time.monotonic())

    def _look(self) -> None:
        try:
            gauges = self._worker_metrics.gauges_by_process()
        except OSError:  # for example too many open files
            return
        with self._lock:
            self._readiness.add(Look(worker_states(gauges), self._news))
            self._news = {}

    def _ping(self) -> None:
        self.unanswered_pings = 0 if self._client.ping() else self.unanswered_pings + 1

    def _start_self_check(self) -> None:
        if self._self_checks.acquire(blocking=False):
            threading.Thread(target=self._self_check, daemon=True).start()

    def _self_check(self) -> None:
        try:
            result = self._client.self_check(self._token)
        finally:
            self._self_checks.release()
        self._report(SELF_CHECK, outcome_of(result, self._settings.edge))

    def _probe(self, name: str, send: Callable[[], None]) -> None:
        try:
            send()
        except OSError as error:
            self._report(name, Probe(Outcome.FAILED, str(error)))
        else:
            self._report(name, ANSWERED)

    def _get_from_edge(self) -> None:
        """Send a request to the edge's port, as clients do. Any response will do."""
        settings = self._settings
        address = Address(settings.host, settings.edge_port)
        get(address, "/ping", _TIMEOUT_S, self._edge_headers, tls=bool(settings.tls_certificate))

    def _call_gateway(self) -> None:
        check_call(Address(self._settings.host_of("grpc_port"), self._settings.grpc_port), _GRPC_PING, _TIMEOUT_S)

    def _report(self, name: str, probe: Probe) -> None:
        with self._lock:
            # An answer is not replaced by a failure of the same moment, for example on a worker that has just ended
            if self._news.get(name) != ANSWERED:
                self._news[name] = probe


def worker_states(gauges: Mapping[int, Mapping[str, float]]) -> dict[int, WorkerState]:
    """Return the state of each worker that has passed its first self-check.

    Args:
        gauges: the gauges of all processes: values by name, by process id.
    """
    return {
        pid: WorkerState(values.get(BATCH_FINISHED.name), bool(values.get(BATCH_STARTED.name)))
        for pid, values in gauges.items()
        if values.get(WORKERS_READY.name)
    }


def outcome_of(result: SelfCheckResult, edge: bool) -> Probe:
    """Return what a response to a self-check means.

    Args:
        result: the response.
        edge: whether the request went through the edge, which refuses with 429 when TorchServe refuses with 503.
    """
    if result.worker is not None:
        return ANSWERED
    problem = "no response"
    if result.status:
        problem = "another model" if result.status == HTTPStatus.OK else f"status {result.status}"
    overloaded = result.status in _OVERLOAD or (result.status == HTTPStatus.SERVICE_UNAVAILABLE and not edge)
    return Probe(Outcome.REFUSED if overloaded else Outcome.FAILED, problem)
