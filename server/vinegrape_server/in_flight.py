"""Finds out whether requests are in flight: received and without a response. TorchServe does not report this."""

from __future__ import annotations

import math
import time

import psutil

from vinegrape_handler.contract import BATCHES_IN_PROGRESS
from vinegrape_server.host.processes import find_workers
from vinegrape_server.operations.worker_metrics import WorkerMetrics
from vinegrape_server.torchserve.client import TorchServeClient

# TorchServe does not count a request that is still being received or copied to a worker. Only its CPU time shows it, so
# the CPU must be idle too: less than 0.1 s of CPU time in half a second. An idle Java and the requests of this module
# use less.
_QUIET_S = 0.5
_QUIET_CPU_S = 0.1
_NO_REPORT = (OSError, ValueError, LookupError, TypeError)


class InFlight:
    """Observes the requests in flight by polling.

    Args:
        client: sends requests to TorchServe.
        worker_metrics: the workers' metrics.
        java_pid: process id of TorchServe's Java process.
        max_batch_delay_ms: the longest time that a batch waits for more requests.
    """

    def __init__(
        self, client: TorchServeClient, worker_metrics: WorkerMetrics, java_pid: int, max_batch_delay_ms: int
    ) -> None:
        self._client = client
        self._worker_metrics = worker_metrics
        self._java_pid = java_pid
        self._quiet_s = max_batch_delay_ms / 1000 + _QUIET_S
        self._quiet_since = self._window_since = time.monotonic()
        self._window_cpu_s = self._cpu_s()

    def none(self) -> bool:
        """Return whether no request has been seen for half a second plus the batch delay. Call it repeatedly."""
        return self.quiet_s() > self._quiet_s

    def quiet_s(self) -> float:
        """Return the seconds for which no request has been seen. Call it repeatedly."""
        now, cpu_s = time.monotonic(), self._cpu_s()
        busy = self._is_busy() or cpu_s - self._window_cpu_s > _QUIET_CPU_S
        if busy:
            self._quiet_since = now
        if busy or now - self._window_since > _QUIET_S:
            self._window_since, self._window_cpu_s = now, cpu_s
        return time.monotonic() - self._quiet_since

    def seen(self) -> bool:
        """Return whether TorchServe or a worker reports a request; False if TorchServe has not loaded its model yet."""
        try:
            return self._reported() > 0
        except _NO_REPORT:
            return False

    def _is_busy(self) -> bool:
        """Return whether a request is queued or in a worker; True if TorchServe does not respond."""
        try:
            return self._reported() > 0
        except _NO_REPORT:
            return True

    def _reported(self) -> float:
        """Return how many requests are queued, or batches in progress.

        It reads the queue first. In the other order it would miss a request that moves from the queue to a worker.
        """
        return self._client.queued_requests() or self._worker_metrics.gauge(BATCHES_IN_PROGRESS.name)

    def _cpu_s(self) -> float:
        """Return the CPU seconds that Java and the workers have used; infinity if one of them has just ended."""
        try:
            java = psutil.Process(self._java_pid)
            times = [process.cpu_times() for process in (java, *find_workers(java))]
        except psutil.Error:  # without this process the sum would be lower, and the CPU would look idle
            return math.inf
        return float(sum(used.user + used.system for used in times))
