"""The metrics of the edge: those counted from its access log, and how full it is."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from vinegrape_server.edge import admin, configuration
from vinegrape_server.edge.access_log import AccessLog
from vinegrape_server.host.http import get

_BACKENDS = ("torchserve", "torchserve_http1")  # of haproxy.cfg; they share the slots
_BACKENDS_AND_SERVERS = "show stat -1 6 -1"
_TIMEOUT_S = 2


class EdgeMetrics(Collector):
    """Adds to the metrics of the access log how many requests wait and how many are at TorchServe now.

    Args:
        log: the access log.
        folder: the folder of the instance.
    """

    def __init__(self, log: AccessLog, folder: Path) -> None:
        self._log = log
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; those of the current state only if HAProxy responds."""
        yield from self._log.collect()
        try:
            table = admin.run_command(self._folder, _BACKENDS_AND_SERVERS)
        except OSError:
            return
        yield from occupancy(table)

    def of_haproxy(self) -> bytes:
        """Return HAProxy's own metrics, in Prometheus' text format.

        Raises:
            OSError: HAProxy does not respond, or was built without Prometheus' format.
        """
        return get(configuration.metrics(self._folder), "/metrics", _TIMEOUT_S).body


def occupancy(table: str) -> Iterator[Metric]:
    """Yield how many requests wait and are at TorchServe, from HAProxy's table of backends and servers."""
    rows = [row for row in csv.DictReader(table.lstrip("# ").splitlines()) if row["pxname"] in _BACKENDS]
    queued = sum(int(row["qcur"]) for row in rows if row["svname"] == "BACKEND")
    served = sum(int(row["scur"]) for row in rows if row["svname"] != "BACKEND")
    yield GaugeMetricFamily("vinegrape_queue_requests", "Requests in the edge's queue for a worker", value=queued)
    yield GaugeMetricFamily(
        "vinegrape_requests_in_progress", "Requests that the edge has passed on to TorchServe", value=served
    )
