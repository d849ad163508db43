"""Whether requests are in flight, which TorchServe does not say."""

from __future__ import annotations

import json
import math
import time

import psutil

from vinegrape_handler.contract import BATCHES_IN_PROGRESS
from vinegrape_server.host.http import get
from vinegrape_server.host.processes import find_workers
from vinegrape_server.operations.worker_metrics import WorkerMetrics
from vinegrape_server.plan import Plan
from vinegrape_server.settings import LOOPBACK

_QUEUE_S = 1  # until the management port has not answered
# On its way from the client to the queue, and from there to the worker, a request is counted nowhere. It takes time
# where it is large, which is time of a processor.
_QUIET_S = 0.5
_QUIET_CPU_S = 0.1  # in that time: a fifth of a core; an idle Java and our own questions take less


class InFlight:
    """Requests between their arrival and their answer, seen by looking again and again."""

    def __init__(self, plan: Plan, java: int, worker_metrics: WorkerMetrics) -> None:
        self._port = plan.settings.management_port
        self._path = f"/models/{plan.archive.metadata.name}"
        self._java = java
        self._worker_metrics = worker_metrics
        self._enough_s = plan.settings.max_batch_delay_ms / 1000 + _QUIET_S
        self._rest()

    def none(self) -> bool:
        """Whether nothing has been seen of any for long enough, look after look."""
        if self._busy() or self._cpu_s() - self._quiet_cpu_s > _QUIET_CPU_S:
            self._rest()
        return time.monotonic() - self._quiet_since > self._enough_s

    def _rest(self) -> None:
        """Begin to count the quiet time."""
        self._quiet_since, self._quiet_cpu_s = time.monotonic(), self._cpu_s()

    def _busy(self) -> bool:
        """Whether a request waits in the queue or is with a worker, or nobody can say.

        The queue first: a request goes from there to a worker, and would be missed the other way round.
        """
        try:
            answer = get(LOOPBACK, self._port, self._path, _QUEUE_S)
            waiting = json.loads(answer.body)[0]["jobQueueStatus"]["pendingRequests"]
            return bool(waiting or self._worker_metrics.gauge(BATCHES_IN_PROGRESS.name))
        except (OSError, ValueError, LookupError, TypeError):
            return True

    def _cpu_s(self) -> float:
        """Seconds of processor time that Java and the workers have taken."""
        try:
            java = psutil.Process(self._java)
            times = [process.cpu_times() for process in (java, *find_workers(java))]
        except psutil.Error:  # one has just ended; a sum without it would look like rest
            return math.inf
        return float(sum(each.user + each.system for each in times))
