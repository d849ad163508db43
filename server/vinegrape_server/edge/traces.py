"""OpenTelemetry traces, made from the access log: the path of a request does not wait for them.

A request is a span of kind SERVER, which continues the trace of the client's header `traceparent`. Its children are the
time in the queue, decoding, and the network. HAProxy measures in milliseconds; the worker states how long decoding and
the network took, and the two are placed at the end of the request.

This module needs the packages of the extra `traces`, so `serve` imports it only if traces are sent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from vinegrape_server.plan import Plan

_NS = 1_000_000  # per millisecond
_SERVER_ERROR = 500


def otlp_processor() -> SpanProcessor:
    """Return a processor that sends spans in batches. OpenTelemetry's variables OTEL_* say where, and how many.

    Raises:
        ValueError: a variable is not valid.
    """
    return BatchSpanProcessor(OTLPSpanExporter())


class OpenTelemetryTraces:
    """Makes spans from entries of the access log.

    Args:
        plan: what is served at the start.
        processor: sends the spans.
    """

    def __init__(self, plan: Plan, processor: SpanProcessor) -> None:
        metadata = plan.archive.metadata
        attributes = {"vinegrape.model.version": metadata.version}
        if "OTEL_SERVICE_NAME" not in os.environ:
            attributes["service.name"] = metadata.name
        self._provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("vinegrape")
        self._context = TraceContextTextMapPropagator()

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add the spans of one request."""
        end = int(entry["time"] * _NS)  # HAProxy writes the line at the end of the request
        begin = end - int(entry["total_ms"] * _NS)
        parent = self._context.extract({"traceparent": entry["traceparent"]})
        span = self._tracer.start_span(_name(entry), parent, SpanKind.SERVER, _attributes(entry), start_time=begin)
        context = set_span_in_context(span)
        for name, first, last in _parts(entry, begin, end):
            self._tracer.start_span(name, context, start_time=first).end(last)
        # An error of the client is none of the server (OpenTelemetry's semantic conventions)
        if entry["error"] and entry["transport"] == "rest" and int(entry["status"]) >= _SERVER_ERROR:
            span.set_status(Status(StatusCode.ERROR))
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
