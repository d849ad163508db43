"""gRPC through the edge, to a stand-in for the gateway."""

import concurrent.futures
import contextlib
import json
from collections.abc import Iterator

import grpc
import pytest

from tests.support.edge import Edge, running_edge
from tests.support.server import wait_until

pytestmark = pytest.mark.tools

SERVICE = "/org.pytorch.serve.grpc.inference.InferenceAPIsService"
OFFERED = [
    f"{SERVICE}/Ping",
    f"{SERVICE}/Predictions",
    f"{SERVICE}/StreamPredictions",
    f"{SERVICE}/StreamPredictions2",
    *(
        f"/inference.GRPCInferenceService/{method}"
        for method in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer")
    ),
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
]


class _Handler(grpc.GenericRpcHandler):
    """Responds to every method with the method, the metadata and the size of the request."""

    def service(self, details):
        method, metadata = details.method, dict(details.invocation_metadata)

        def respond(request: bytes, context: grpc.ServicerContext) -> bytes:
            if request == b"fail":
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no image")
            return json.dumps({"method": method, "metadata": metadata, "bytes": len(request)}).encode()

        def stream(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            for request in requests:
                yield respond(request, context)

        if method.endswith("Info"):
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.unary_unary_rpc_method_handler(respond)


@contextlib.contextmanager
def gateway(port: int) -> Iterator[None]:
    options = [("grpc.max_receive_message_length", 40_000_000)]
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), handlers=[_Handler()], options=options)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield
    finally:
        server.stop(0).wait()


@contextlib.contextmanager
def served(folder, **settings) -> Iterator[tuple[Edge, grpc.Channel]]:
    with (
        running_edge(folder, **settings) as edge,
        gateway(edge.ports["grpc_port"]),
        grpc.insecure_channel(f"127.0.0.1:{edge.port}") as channel,
    ):
        yield edge, channel


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """An edge with a gateway, and a channel to it."""
    with served(tmp_path_factory.mktemp("grpc")) as pair:
        yield pair


def call(channel: grpc.Channel, method: str, request: bytes = b"image", metadata=()) -> dict:
    text = channel.unary_unary(method)(request, timeout=20, metadata=metadata)
    description: dict = json.loads(text)
    return description


def failure(channel: grpc.Channel, method: str, metadata=(), request: bytes = b"image") -> tuple[str, dict]:
    """Name of the status, and the error in its details."""
    with pytest.raises(grpc.RpcError) as raised:
        call(channel, method, request, metadata)
    return raised.value.code().name, json.loads(raised.value.details())["error"]


@pytest.mark.parametrize("method", [method for method in OFFERED if not method.endswith("Info")])
def test_an_offered_method_reaches_the_gateway(both, method):
    assert call(both[1], method)["method"] == method


@pytest.mark.parametrize("size", [0, 100_000, 20_000_000])
def test_messages_of_any_size(both, size):
    assert call(both[1], f"{SERVICE}/Predictions", b"x" * size)["bytes"] == size


@pytest.mark.parametrize("method", [method for method in OFFERED if method.endswith("Info")])
def test_messages_of_a_stream_are_exchanged_one_by_one(both, method):
    received = []

    def requests() -> Iterator[bytes]:
        yield b"1"
        while not received:  # the second request is sent after the first response
            pass
        yield b"22"

    for response in both[1].stream_stream(method)(requests(), timeout=20):
        received.append(json.loads(response)["bytes"])
    assert received == [1, 2]


@pytest.mark.parametrize(
    "method",
    [
        f"{SERVICE}/Other",
        f"{SERVICE}/predictions",
        "/org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels",
        "/inference.GRPCInferenceService/ModelStreamInfer",
        "/predictions/vinegrape",
    ],
)
def test_another_method_is_unimplemented(both, method):
    status, error = failure(both[1], method)
    assert (status, error["type"]) == ("UNIMPLEMENTED", "not_found")
    assert call(both[1], f"{SERVICE}/Ping")  # the channel is not disturbed


def test_our_headers_and_the_request_id(both):
    metadata = call(
        both[1], f"{SERVICE}/Predictions", metadata=(("x-vinegrape-deadline-ms", "1"), ("x-request-id", "7"))
    )["metadata"]
    assert not [name for name in metadata if name.startswith("x-vinegrape")]
    assert metadata["x-request-id"] == "7"
    assert len(call(both[1], f"{SERVICE}/Predictions")["metadata"]["x-request-id"]) == 36


def test_a_status_of_the_gateway_is_passed_on(both):
    with pytest.raises(grpc.RpcError) as raised:
        call(both[1], f"{SERVICE}/Predictions", b"fail")
    assert (raised.value.code().name, raised.value.details()) == ("INVALID_ARGUMENT", "no image")


def test_a_call_is_logged_once_and_counted_only_if_the_edge_refused_it(tmp_path):
    with served(tmp_path) as (edge, channel):
        call(channel, f"{SERVICE}/Predictions")
        failure(channel, f"{SERVICE}/Other")
        first, second = edge.wait_for_lines(2)
        assert (first["transport"], first["path"], first["status"]) == ("grpc", f"{SERVICE}/Predictions", 200)
        assert (second["transport"], second["error"]) == ("grpc", "not_found")
        assert edge.counts() == {("grpc", "UNIMPLEMENTED", "not_found"): 1}


def test_a_gateway_that_does_not_run_is_unavailable(tmp_path):
    with running_edge(tmp_path) as edge, grpc.insecure_channel(f"127.0.0.1:{edge.port}") as channel:
        status, error = failure(channel, f"{SERVICE}/Predictions")
        assert (status, error["type"], error["code"]) == ("UNAVAILABLE", "unavailable", 503)
        edge.wait_for_lines(1)
        assert edge.counts() == {("grpc", "UNAVAILABLE", "unavailable"): 1}


def test_keys(tmp_path):
    (tmp_path / "keys").write_text("phone 0123456789abcdef\n")
    (tmp_path / "edge").mkdir()
    with served(tmp_path / "edge", api_keys=str(tmp_path / "keys")) as (edge, channel):
        predictions = f"{SERVICE}/Predictions"
        assert failure(channel, predictions)[0] == "UNAUTHENTICATED"
        assert failure(channel, predictions, (("x-api-key", "wrong"),))[0] == "PERMISSION_DENIED"
        metadata = call(channel, predictions, metadata=(("authorization", "Bearer 0123456789abcdef"),))["metadata"]
        assert "authorization" not in metadata
        assert edge.wait_for_lines(3)[-1]["key"] == "phone"
        assert call(channel, "/grpc.health.v1.Health/Check")
        assert call(channel, f"{SERVICE}/Ping")


def test_a_limited_rate_is_resource_exhausted(tmp_path):
    with served(tmp_path, max_requests_per_second=1) as (_, channel):
        statuses, waits = [], []
        for _ in range(3):
            try:
                call(channel, f"{SERVICE}/Ping")
                statuses.append("OK")
            except grpc.RpcError as error:
                statuses.append(error.code().name)
                waits.append(dict(error.trailing_metadata())["retry-after"])
        assert waits == ["1", "1"]
        assert statuses == ["OK", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]


def test_a_graceful_stop_answers_a_channel_once_more_and_then_closes_it(tmp_path):
    with served(tmp_path) as (edge, channel):
        call(channel, f"{SERVICE}/Ping")
        edge.process.stop_gracefully()
        wait_until(edge.refuses_connections)
        call(channel, f"{SERVICE}/Ping")
        # The GOAWAY makes the channel connect again before its next call
        with pytest.raises(grpc.RpcError) as raised:
            call(channel, f"{SERVICE}/Ping")
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
