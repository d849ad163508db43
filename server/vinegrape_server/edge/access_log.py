"""The access log: one line of JSON per request of a client, and the metrics that are counted from it."""

from __future__ import annotations

import datetime
import json
import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, Protocol, TextIO

from prometheus_client import Counter, Histogram, Metric
from prometheus_client.registry import Collector

from vinegrape_handler.errors import REFUSALS, WORKER_ERRORS
from vinegrape_server.host.console import write_console

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30)
_CHUNK_BYTES = 1 << 16
_CLIENT_CLOSED = "client_closed"
_CLIENT_CLOSED_STATUS = 499  # nginx's number; the client has left, so no status was sent
_NO_SERVER = "<NOSRV>"
_TIMING = re.compile(r"decode;dur=([0-9.]+), inference;dur=([0-9.]+)")  # the worker's header Server-Timing, in ms
_TORCHSERVE = ("torchserve", "inner")  # of the backends that wait for a worker
_GRPC_STATUS = {
    "3": "INVALID_ARGUMENT",
    "7": "PERMISSION_DENIED",
    "8": "RESOURCE_EXHAUSTED",
    "12": "UNIMPLEMENTED",
    "14": "UNAVAILABLE",
    "16": "UNAUTHENTICATED",
}


class Traces(Protocol):
    """Receives the requests of the access log."""

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add one request: the fields of its line, and `time` in milliseconds."""


class AccessLog(Collector):
    """Reads HAProxy's log, counts each request in exactly one series, and writes one line for it.

    Args:
        output: where the lines are written; None writes none.
        traces: receives each request too; None for no traces.
    """

    def __init__(self, output: TextIO | None, traces: Traces | None = None) -> None:
        self._output = output
        self._traces = traces
        self._responses = Counter(
            "vinegrape_responses",
            "Responses of the edge to REST clients, and its refusals of gRPC calls, by the status that the client got; "
            "error is the type in the body. The gateway counts the gRPC calls that it has received. Status 499 with "
            "error client_closed: the client left before its response",
            ["transport", "status", "error"],
            registry=None,
        )
        self._queue = Histogram(
            "vinegrape_queue_seconds",
            "Seconds that requests waited in the edge's queue for a worker",
            ["transport"],
            buckets=_SECONDS,
            registry=None,
        )
        self._response = Histogram(
            "vinegrape_response_seconds",
            "Seconds from the first byte of a request to the last byte of its response, of requests whose images a "
            "worker has processed; upload and queue are included",
            ["transport"],
            buckets=_SECONDS,
            registry=None,
        )
        # So that Prometheus sees the first request of a series as an increase
        known = {
            (200, ""),
            (_CLIENT_CLOSED_STATUS, _CLIENT_CLOSED),
            *((e.status, e.type) for e in (*WORKER_ERRORS, *REFUSALS)),
        }
        for status, error in sorted(known):
            self._responses.labels("rest", status, error)
        for transport in ("rest", "grpc"):
            self._queue.labels(transport)
            self._response.labels(transport)
        self._threads: list[threading.Thread] = []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        for metric in (self._responses, self._queue, self._response):
            yield from metric.collect()

    def follow(self, stream: IO[bytes]) -> None:
        """Read the log of one HAProxy process in a thread, until the process ends."""
        thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def wait_for_end(self, timeout_s: float) -> None:
        """Wait for the last line of every process, but at most this long for each."""
        for thread in self._threads:
            thread.join(timeout_s)

    def add(self, lines: Iterable[bytes]) -> None:
        """Count and write some of HAProxy's lines."""
        entries = [entry for line in lines if (entry := _entry(line)) is not None]
        for entry in entries:
            self._count(entry)
            # The gateway has counted its errors itself
            entry["error"] = entry["error"] or entry["call_error"]
        if self._output:
            text = "".join(json.dumps(_public(entry), separators=(",", ":")) + "\n" for entry in entries)
            write_console(text, self._output)
        if self._traces:
            for entry in entries:
                self._traces.add(entry)

    def _read(self, stream: IO[bytes]) -> None:
        """Read large parts: one system call and one write for all lines that have arrived."""
        rest = b""
        with stream:
            while chunk := stream.read1(_CHUNK_BYTES):  # type: ignore[attr-defined]
                *lines, rest = (rest + chunk).split(b"\n")
                self.add(lines)

    def _count(self, entry: dict[str, Any]) -> None:
        transport = entry["transport"]
        if entry["queue_ms"] is not None:
            self._queue.labels(transport).observe(entry["queue_ms"] / 1000)
        if entry["inference_ms"] is not None and entry["error"] != _CLIENT_CLOSED:
            self._response.labels(transport).observe(max(entry["total_ms"], 0) / 1000)
        if transport == "grpc":
            reached_gateway = entry["server"] != _NO_SERVER and not entry["error"]
            if not reached_gateway and entry["error"] != _CLIENT_CLOSED:
                status = _GRPC_STATUS.get(entry["grpc_status"], "UNKNOWN")
                self._responses.labels("grpc", status, entry["error"]).inc()
            return
        self._responses.labels("rest", entry["status"], entry["error"]).inc()


def _entry(line: bytes) -> dict[str, Any] | None:
    """Read one line of HAProxy; None for a line that is not JSON, such as a warning."""
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    # HAProxy writes "-" for a variable that is not set
    entry: dict[str, Any] = {name: "" if value == "-" else value for name, value in fields.items()}
    entry["transport"] = entry["transport"] or "rest"
    if _client_left(entry):
        entry["status"], entry["error"] = _CLIENT_CLOSED_STATUS, _CLIENT_CLOSED
    elif entry["status"] == 400 and not entry["error"] and entry["server"] == _NO_SERVER:
        entry["error"] = "bad_request"  # HAProxy could not parse the head
    elif entry["status"] == 408 and not entry["error"]:
        entry["error"] = "upload_timeout"
    waited, service = entry.pop("Tw"), entry.pop("Tr")
    if entry["server"] not in _TORCHSERVE:  # a gRPC call that ended in the gateway, a probe, or a refusal
        waited = -1 if entry["queue_ms"] == "" else waited
    # A gRPC call, and a request with its own deadline, wait behind the private entry. A header reports the time
    inside = int(entry["queue_ms"] or 0)
    entry["queue_ms"] = None if waited < 0 else waited + inside
    entry["service_ms"] = None if service < 0 else service - inside
    timing = _TIMING.search(entry.pop("timing"))
    entry["decode_ms"], entry["inference_ms"] = map(float, timing.groups()) if timing else (None, None)
    entry["total_ms"] = entry.pop("Ta")
    return entry


def _client_left(entry: dict[str, Any]) -> bool:
    """Return whether the client closed its connection before it got a response: see HAProxy's termination states."""
    return str(entry["termination"])[0] == "C" and str(entry["termination"])[1:2] in ("R", "Q", "C", "H")


def _public(entry: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "traceparent", "client", "key", "transport", "method", "path", "status", "error", "version")
    numbers = (
        "bytes_in",
        "bytes_out",
        "queue_ms",
        "service_ms",
        "decode_ms",
        "inference_ms",
        "total_ms",
        "termination",
    )
    time = datetime.datetime.fromtimestamp(entry["time"] / 1000, datetime.UTC)
    return {
        "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "severity": "ERROR" if entry["status"] >= 500 else "INFO",
        **{name: entry[name] for name in (*names, *numbers)},
    }
