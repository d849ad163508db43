"""Traces of a running server, as a receiver of OpenTelemetry's protocol gets them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.conftest import program
from tests.support.server import run_command, serve_command, serving, wait_until
from vinegrape_client.inference_pb2 import PredictionsRequest
from vinegrape_client.inference_pb2_grpc import InferenceAPIsServiceStub

pytestmark = [pytest.mark.live, pytest.mark.tools]

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@contextmanager
def receiver() -> Iterator[tuple[int, list[Span]]]:
    """A receiver of OTLP over HTTP. It yields its port, and the spans that it has received so far."""
    spans: list[Span] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            request = ExportTraceServiceRequest.FromString(body)
            spans.extend(
                span for group in request.resource_spans for scope in group.scope_spans for span in scope.spans
            )
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server.server_address[1], spans
        server.shutdown()
        thread.join()


def test_each_request_is_one_trace_with_its_parent(tiny_archive, tmp_path, image):
    """Also after the server has ended: nothing is lost."""
    program("haproxy", "haproxy")
    with receiver() as (port, spans):
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}"}
        with serving(tiny_archive, tmp_path / "log", edge=True, traces=True, environment=variables) as live:
            for number in range(5):
                trace = f"00-{number:032x}-{PARENT}-01" if number else f"00-{TRACE}-{PARENT}-01"
                assert httpx.post(f"{live.url}", content=image, headers={"traceparent": trace}).status_code == 200
            with grpc.insecure_channel(live.grpc_address) as channel:
                request = PredictionsRequest(model_name="vinegrape", input={"data": image})
                metadata = [("traceparent", f"00-{9:032x}-{PARENT}-01")]
                InferenceAPIsServiceStub(channel).Predictions(request, metadata=metadata)
            wait_until(lambda: live.metrics()["vinegrape_response_seconds_count", "grpc"] == 1)
        servers = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
        assert {span.trace_id.hex() for span in servers} == {TRACE, *(f"{n:032x}" for n in (1, 2, 3, 4, 9))}
        assert len(servers) == 6
        assert {span.parent_span_id.hex() for span in servers} == {PARENT}
        for server in servers:
            parts = {span.name: span for span in spans if span.parent_span_id == server.span_id}
            assert sorted(parts) == ["decode", "inference", "queue"]
            assert all(span.trace_id == server.trace_id for span in parts.values())
            assert all(
                server.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
                for span in parts.values()
            )


def test_traces_need_the_edge(tiny_archive):
    result = run_command(serve_command(tiny_archive, traces=True))
    assert result.returncode == 1
    assert "traces is true, but traces are made from the edge's log" in result.stderr
