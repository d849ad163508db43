"""OpenTelemetry traces, made from the access log: the path of a request does not wait for them.

A request is a span of kind SERVER, which continues the trace of the client's header `traceparent`. Its children are the
time in the queue, decoding, and the network. HAProxy measures in milliseconds; the worker states how long decoding and
the network took, and the two are placed at the end of the request.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

from vinegrape_handler.errors import SettingError
from vinegrape_server.plan import Plan

_NS = 1_000_000  # per millisecond
_SERVER_ERROR = 500


class Traces(Protocol):
    """Receives the requests of the access log."""

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add the entry of one request, see `access_log`."""

    def close(self) -> None:
        """Send what has not been sent."""


def start_traces(plan: Plan) -> Traces:
    """Start to send traces. OpenTelemetry's own variables, OTEL_*, say where and how many.

    Raises:
        SettingError: OpenTelemetry is not installed, or one of its variables is not valid.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        return OpenTelemetryTraces(plan, BatchSpanProcessor(OTLPSpanExporter()))
    except ImportError as error:
        raise SettingError(
            f"traces is true, but {error.name} is not installed. Run: pip install -c constraints.txt -e '.[traces]'"
        ) from error
    except ValueError as error:
        raise SettingError(f"OpenTelemetry does not accept a variable OTEL_*: {error}") from error


class OpenTelemetryTraces:
    """Makes spans from entries of the access log.

    Args:
        plan: what is served.
        processor: a span processor of OpenTelemetry's SDK, which sends the spans.
    """

    def __init__(self, plan: Plan, processor: Any) -> None:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider

        metadata = plan.archive.metadata
        attributes = {"vinegrape.model.version": metadata.version}
        if "OTEL_SERVICE_NAME" not in os.environ:
            attributes["service.name"] = metadata.name
        self._provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("vinegrape")

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add the spans of one request."""
        from opentelemetry.trace import SpanKind, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        end = int(entry["time"] * _NS)  # HAProxy writes the line at the end of the request
        begin = end - int(entry["total_ms"] * _NS)
        parent = TraceContextTextMapPropagator().extract({"traceparent": entry["traceparent"]})
        span = self._tracer.start_span(_name(entry), parent, SpanKind.SERVER, _attributes(entry), start_time=begin)
        context = set_span_in_context(span)
        for name, first, last in _parts(entry, begin, end):
            self._tracer.start_span(name, context, start_time=first).end(last)
        if entry["error"]:
            span.set_status(_error_status(entry))
        span.end(end)

    def close(self) -> None:
        """Send what has not been sent."""
        self._provider.shutdown()


def _name(entry: Mapping[str, Any]) -> str:
    if entry["transport"] == "grpc":
        return str(entry["path"]).removeprefix("/")
    return f"{entry['method']} {entry['path']}"


def _attributes(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes with the names of OpenTelemetry's semantic conventions for HTTP and RPC."""
    common = {"client.address": entry["client"], "vinegrape.request_id": entry["id"]}
    if entry["error"]:
        common["error.type"] = entry["error"]
    if entry["transport"] == "grpc":
        service, _, method = str(entry["path"]).removeprefix("/").partition("/")
        return {**common, "rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    return {
        **common,
        "http.request.method": entry["method"],
        "url.path": entry["path"],
        "http.response.status_code": entry["status"],
        "http.request.size": entry["bytes_in"],
        "http.response.size": entry["bytes_out"],
    }


def _parts(entry: Mapping[str, Any], begin: int, end: int) -> list[tuple[str, int, int]]:
    """Return name, start and end of the parts of a request, in nanoseconds of Unix time."""
    parts = []
    if entry["queue_ms"] is not None and entry["service_ms"] is not None:
        served = end - int(entry["service_ms"] * _NS)
        parts.append(("queue", max(begin, served - int(entry["queue_ms"] * _NS)), max(begin, served)))
    if entry["inference_ms"] is not None:
        inferred = end - int(entry["inference_ms"] * _NS)
        decoded = inferred - int(entry["decode_ms"] * _NS)
        parts += [("decode", max(begin, decoded), max(begin, inferred)), ("inference", max(begin, inferred), end)]
    return parts


def _error_status(entry: Mapping[str, Any]) -> Any:
    """Return the status of a span that has failed. A client's own error is none of a server (semantic conventions)."""
    from opentelemetry.trace import Status, StatusCode

    failed = entry["transport"] == "rest" and int(entry["status"]) >= _SERVER_ERROR
    return Status(StatusCode.ERROR if failed else StatusCode.UNSET)
