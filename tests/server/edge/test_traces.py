"""Traces made from entries of the access log, and what a receiver of OpenTelemetry gets."""

import io
import json

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.server.edge.test_access_log import LINE
from tests.support.archives import plan
from vinegrape_server.edge.access_log import AccessLog
from vinegrape_server.edge.traces import OpenTelemetryTraces

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
END = LINE["time"] * 1_000_000


def spans(**changes):
    """The spans of one of HAProxy's lines with these changes, by name."""
    exporter = InMemorySpanExporter()
    log = AccessLog(io.StringIO(), OpenTelemetryTraces(plan(edge=True), SimpleSpanProcessor(exporter)))
    log.add([json.dumps({**LINE, **changes}).encode()])
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_request_continues_the_clients_trace():
    request = spans(traceparent=f"00-{TRACE}-{PARENT}-01")["POST /predictions/vinegrape"]
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == PARENT
    assert request.kind is SpanKind.SERVER
    assert (request.end_time, request.end_time - request.start_time) == (END, 11_000_000)
    assert request.attributes["http.response.status_code"] == 200
    assert request.resource.attributes["service.name"] == "vinegrape"
    assert request.resource.attributes["vinegrape.model.version"] == plan().archive.metadata.version


def test_a_request_without_a_trace_starts_one():
    request = spans()["POST /predictions/vinegrape"]
    assert request.parent is None
    assert request.context.trace_id != 0


def test_a_client_that_does_not_sample_gets_no_spans():
    assert spans(traceparent=f"00-{TRACE}-{PARENT}-00") == {}


def test_queue_decoding_and_network_are_children():
    """11 ms in all: 1 to receive the request, 3 in the queue, 7 at TorchServe; of these 4.2 to decode, 2 inference."""
    found = spans()
    request = found.pop("POST /predictions/vinegrape")
    assert {name: span.end_time - span.start_time for name, span in found.items()} == {
        "queue": 3_000_000,
        "decode": 4_200_000,
        "inference": 2_000_000,
    }
    assert all(span.parent.span_id == request.context.span_id for span in found.values())
    assert found["queue"].start_time == request.start_time + 1_000_000
    assert found["decode"].end_time == found["inference"].start_time
    assert found["inference"].end_time == END


def test_a_refused_request_has_no_parts_and_its_error():
    refused = {"status": 429, "error": "overloaded", "Tw": -1, "Tr": -1, "timing": "-", "server": "<NOSRV>"}
    (request,) = spans(**refused).values()
    assert request.attributes["error.type"] == "overloaded"
    assert request.status.status_code is StatusCode.UNSET  # the client can do something about it
    (failed,) = spans(**{**refused, "status": 503, "error": "unavailable"}).values()
    assert failed.status.status_code is StatusCode.ERROR


def test_a_grpc_call_has_the_names_of_rpc():
    method = "org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
    call = spans(transport="grpc", path=f"/{method}", server="gateway", Tw=0, queue_ms="3")[method]
    assert call.attributes["rpc.method"] == "Predictions"
    assert "http.response.status_code" not in call.attributes
