"""The gRPC service of a running server: statuses, metadata, health, reflection, bounds, and its stop."""

import asyncio
import itertools
import json
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.payloads import instances
from tests.support.processes import STOP_S, gateway, workers
from tests.support.server import Live, listens, serving, starting, wait_until
from vinegrape_server.gateway.inference_pb2 import PredictionResponse, PredictionsRequest, TorchServeHealthResponse

SERVICE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
OPEN_INFERENCE = "inference.GRPCInferenceService"
HEALTH, REFLECTION = "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"
TIMEOUT_S = 60
PNG = b"\x89PNG\r\n\x1a\n"

pytestmark = pytest.mark.live


@pytest.fixture
def channel(tiny_server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(tiny_server.grpc_address) as channel:
        yield channel


def message(*, model_name: str = "vinegrape", model_version: str = "", **inputs: bytes) -> bytes:
    request = PredictionsRequest(model_name=model_name, model_version=model_version, input=inputs)
    return request.SerializeToString()


def predict(channel, serialized: bytes, **options) -> grpc.RpcError | bytes:
    """The prediction, or the error."""
    options = {"timeout": TIMEOUT_S, **options}
    try:
        response = channel.unary_unary(f"/{SERVICE}/Predictions")(serialized, **options)
    except grpc.RpcError as error:
        return error
    return PredictionResponse.FromString(response).prediction


def error_of(call: grpc.RpcError) -> tuple[StatusCode, int, str]:
    """The status, and code and type in the JSON of its details."""
    error = json.loads(call.details())["error"]
    assert error["message"]
    return call.code(), error["code"], error["type"]


def calls(live: Live) -> dict[tuple[str, str], float]:
    """The number of calls by error and status, without the series that are zero."""
    return {
        key[1:3]: value
        for key, value in live.metrics().items()
        if key[0] == "vinegrape_responses_total" and key[3] == "grpc" and value
    }


def counted_since(live: Live, before: dict[tuple[str, str], float]) -> dict[tuple[str, str], float]:
    return {key: value - before.get(key, 0) for key, value in calls(live).items() if value != before.get(key, 0)}


# Message, status, and code and type of the error
ERRORS = {
    "no bytes": (message(data=b""), (StatusCode.INVALID_ARGUMENT, 400, "no_image")),
    "no input": (message(), (StatusCode.INVALID_ARGUMENT, 400, "no_image")),
    "another input": (message(photo=b"?"), (StatusCode.INVALID_ARGUMENT, 400, "no_image")),
    "two inputs": (message(data=b"?", image=b"?"), (StatusCode.INVALID_ARGUMENT, 400, "bad_request")),
    "no model": (message(model_name="", data=b"?"), (StatusCode.INVALID_ARGUMENT, 400, "bad_request")),
    "another model": (message(model_name="other", data=b"?"), (StatusCode.NOT_FOUND, 404, "not_found")),
    "another version": (message(model_version="other", data=b"?"), (StatusCode.NOT_FOUND, 404, "not_found")),
    "no protobuf": (b"no protobuf", (StatusCode.INVALID_ARGUMENT, 400, "bad_request")),
    "a text": (message(data=b"a leaf"), (StatusCode.INVALID_ARGUMENT, 415, "unsupported_format")),
    "a broken image": (message(data=PNG + bytes(30)), (StatusCode.INVALID_ARGUMENT, 422, "broken_image")),
    "a large image": (message(data=PNG + bytes(20_000_000)), (StatusCode.INVALID_ARGUMENT, 413, "too_large")),
    "a large message": (message(data=bytes(30_000_001)), (StatusCode.INVALID_ARGUMENT, 413, "too_large")),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_a_status_with_json_and_is_counted_once(tiny_server, channel, name):
    serialized, expected = ERRORS[name]
    before = calls(tiny_server)
    assert error_of(predict(channel, serialized)) == expected
    assert counted_since(tiny_server, before) == {(expected[2], str(expected[1])): 1}


def test_a_prediction_is_ok_and_counted_once(tiny_server, channel, image):
    before = calls(tiny_server)
    prediction = json.loads(predict(channel, message(data=image)))
    assert (prediction["label"], prediction["probability"]) == ("Ak", 0.75)
    assert json.loads(predict(channel, message(model_version="tiny", data=image))) == prediction
    assert counted_since(tiny_server, before) == {("", "200"): 2}


def test_instances_are_ok_even_if_one_of_them_is_an_error(channel, image):
    first, second = json.loads(predict(channel, message(data=instances(image, {"b64": "?"}))))["predictions"]
    assert (first["label"], second["error"]["code"]) == ("Ak", 400)


def test_every_series_exists_from_the_start(tiny_archive, tmp_path):
    with serving(tiny_archive, tmp_path / "log") as live:
        series = [key for key in live.metrics() if key[0] == "vinegrape_responses_total" and key[3] == "grpc"]
        assert calls(live) == {}
    assert {(key[1], key[2]) for key in series} >= {
        ("", "200"), ("client_closed", "499"), ("deadline_exceeded", "504"), ("overloaded", "429"),
        ("unavailable", "503"), ("too_large", "413"), ("not_found", "404"), ("method_not_allowed", "405"),
    }  # fmt: skip


@pytest.mark.parametrize("method", ["StreamPredictions", "StreamPredictions2"])
def test_streams_are_unimplemented_and_harm_no_worker(tiny_server, channel, image, method):
    before, deaths = calls(tiny_server), tiny_server.metrics()[("vinegrape_worker_deaths_total",)]
    kind = channel.stream_stream if method == "StreamPredictions2" else channel.unary_stream
    serialized = message(data=image) + b"\x22\x03abc"  # the field sequence_id of TorchServe's message
    request = iter([serialized]) if method == "StreamPredictions2" else serialized
    with pytest.raises(grpc.RpcError) as raised:
        list(kind(f"/{SERVICE}/{method}")(request, timeout=TIMEOUT_S))
    assert raised.value.code() is StatusCode.UNIMPLEMENTED
    assert "Predictions" in json.loads(raised.value.details())["error"]["message"]
    assert counted_since(tiny_server, before) == {("method_not_allowed", "405"): 1}
    assert tiny_server.metrics()[("vinegrape_worker_deaths_total",)] == deaths


def test_the_request_id_and_the_trace_are_returned(channel, image):
    method = channel.unary_unary(f"/{SERVICE}/Predictions")
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    sent = (("x-request-id", "mine-1"), ("traceparent", trace))
    _, call = method.with_call(message(data=image), metadata=sent, timeout=TIMEOUT_S)
    assert dict(call.trailing_metadata()) == dict(sent)
    error = predict(channel, b"?", metadata=sent)
    assert dict(error.trailing_metadata()) == dict(sent)


def test_an_invalid_request_id_is_replaced(channel, image):
    method = channel.unary_unary(f"/{SERVICE}/Predictions")
    sent = (("x-request-id", "a b"), ("traceparent", "00-1-2-3"))
    ids = [
        dict(method.with_call(message(data=image), metadata=sent, timeout=TIMEOUT_S)[1].trailing_metadata())
        for _ in range(2)
    ]
    assert [list(returned) for returned in ids] == [["x-request-id"]] * 2
    assert len({returned["x-request-id"] for returned in ids} | {"a b"}) == 3


def test_a_message_with_millions_of_inputs_is_refused_without_reading_it(tiny_server, channel, image):
    """Protobuf would need gigabytes for it."""
    process = gateway(tiny_server.process)
    entry = b"\x1a\x04\x0a\x00\x12\x00"
    small = predict(channel, message(data=image))
    resident = process.memory_info().rss
    assert error_of(predict(channel, entry * 4_900_000)) == (StatusCode.INVALID_ARGUMENT, 400, "bad_request")
    assert process.memory_info().rss - resident < 200_000_000
    assert predict(channel, message(data=image)) == small


HOSTILE = {
    "groups in groups": b"\x1b" * 100_000,
    "groups in an input": b"\x1a\x80\x01" + b"\x1b" * 128,
    "unknown fields": b"\x28\x01" * 1_000_000,
    "an integer without an end": b"\xff" * 1_000_000,
    "a field longer than the message": b"\x1a\xff\xff\xff\xff\x0f",
    "a name that is not UTF-8": b"\x0a\x02\xff\xfe",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_messages_are_refused_and_not_logged(tiny_server, channel, image, name):
    log = tiny_server.log.read_text()
    assert error_of(predict(channel, HOSTILE[name])) == (StatusCode.INVALID_ARGUMENT, 400, "bad_request")
    assert json.loads(predict(channel, message(data=image)))["label"] == "Ak"
    assert tiny_server.log.read_text() == log


def test_a_message_far_beyond_the_limit_is_refused_by_grpc(tiny_server, channel, image):
    log = tiny_server.log.read_text()
    error = predict(channel, bytes(60_000_001))
    assert (error.code(), "larger than max" in error.details()) == (StatusCode.RESOURCE_EXHAUSTED, True)
    assert json.loads(predict(channel, message(data=image)))["label"] == "Ak"
    assert tiny_server.log.read_text() == log


def test_compressed_messages_are_refused(tiny_server, channel, image):
    """A small one could unpack to gigabytes."""
    error = predict(channel, message(data=bytes(20_000_000)), compression=grpc.Compression.Gzip)
    assert error.code() is StatusCode.UNIMPLEMENTED
    assert json.loads(predict(channel, message(data=image)))["label"] == "Ak"


def test_a_call_without_a_message_is_refused(channel):
    with pytest.raises(grpc.RpcError) as raised:
        channel.stream_unary(f"/{SERVICE}/Predictions")(iter([]), timeout=TIMEOUT_S)
    assert error_of(raised.value) == (StatusCode.INVALID_ARGUMENT, 400, "bad_request")


def test_ping_and_health_follow_readiness(tiny_server, channel):
    def health(service: str) -> int:
        return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S).status

    stub = health_pb2_grpc.HealthStub(channel)
    ping = TorchServeHealthResponse.FromString(channel.unary_unary(f"/{SERVICE}/Ping")(b"", timeout=TIMEOUT_S))
    assert json.loads(ping.health) == {"status": "Healthy"}
    serving_ = health_pb2.HealthCheckResponse.SERVING
    assert [health(service) for service in ("", SERVICE, OPEN_INFERENCE)] == [serving_] * 3
    with pytest.raises(grpc.RpcError) as raised:
        health("other")
    assert raised.value.code() is StatusCode.NOT_FOUND


def test_before_the_workers_are_ready_calls_are_unavailable_and_health_says_so(tiny_archive, image, tmp_path):
    with starting(tiny_archive, tmp_path / "log") as live, grpc.insecure_channel(live.grpc_address) as channel:
        wait_until(lambda: listens("127.0.0.1", live.ports["grpc_port"]))
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=TIMEOUT_S)
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert error_of(predict(channel, message(data=image))) == (StatusCode.UNAVAILABLE, 503, "unavailable")
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        assert json.loads(predict(channel, message(data=image)))["label"] == "Ak"


def test_reflection_lists_the_services_and_describes_the_messages(channel):
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
    ]
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    listed, described = stub.ServerReflectionInfo(iter(requests), timeout=TIMEOUT_S)
    assert [service.name for service in listed.list_services_response.service] == sorted(
        [HEALTH, REFLECTION, SERVICE, OPEN_INFERENCE]
    )
    files = map(FileDescriptorProto.FromString, described.file_descriptor_response.file_descriptor_proto)
    assert {"PredictionsRequest", "PredictionResponse"} <= {m.name for file in files for m in file.message_type}


def test_a_method_that_does_not_exist_is_unimplemented(channel):
    for method in (f"/{SERVICE}/Other", "/other.Service/Method"):
        with pytest.raises(grpc.RpcError) as raised:
            channel.unary_unary(method)(b"", timeout=TIMEOUT_S)
        assert raised.value.code() is StatusCode.UNIMPLEMENTED


def test_cancelled_and_late_calls_harm_nobody(tiny_server, image):
    """Near the response, they could end a worker behind TorchServe's own gRPC (pytorch/serve#2321)."""
    before, deaths = calls(tiny_server), tiny_server.metrics()[("vinegrape_worker_deaths_total",)]
    ended, predictions = asyncio.run(storm(tiny_server.grpc_address, message(data=image + bytes(100_000)), 200))
    assert set(ended) >= {StatusCode.OK, StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED}
    assert predictions == {"Ak"}
    assert tiny_server.metrics()[("vinegrape_worker_deaths_total",)] == deaths
    assert set(counted_since(tiny_server, before)) <= {
        ("", "200"),
        ("client_closed", "499"),
        ("deadline_exceeded", "504"),
    }


async def storm(address: str, serialized: bytes, rounds: int) -> tuple[Counter[StatusCode], set[str]]:
    """Make rounds of four calls at the same time: one with a deadline, one that is cancelled, and two neighbours.

    Returns:
        The number of calls by status, and the labels that the neighbours got.
    """
    chance = random.Random(0)
    ended, labels = Counter[StatusCode](), set()
    async with grpc.aio.insecure_channel(address) as channel:
        method = channel.unary_unary(f"/{SERVICE}/Predictions")

        async def call(timeout_s: float = TIMEOUT_S, cancel_after_s: float | None = None) -> None:
            running = method(serialized, timeout=timeout_s)
            if cancel_after_s is not None:
                await asyncio.sleep(cancel_after_s)
                running.cancel()
            ended[await running.code()] += 1
            if timeout_s == TIMEOUT_S and cancel_after_s is None:
                labels.add(json.loads(PredictionResponse.FromString(await running).prediction)["label"])

        for _ in range(rounds):
            late, cancelled = chance.uniform(0.001, 0.05), chance.uniform(0, 0.05)
            await asyncio.gather(call(late), call(cancel_after_s=cancelled), call(), call())
    return ended, labels


@pytest.fixture(scope="module")
def busy_server(tiny_archive, image, tmp_path_factory) -> Iterator[Live]:
    """A server whose only worker does not respond, and whose queue of two requests is full."""
    log = tmp_path_factory.mktemp("busy") / "log"
    with serving(tiny_archive, log, queue_size=2, response_timeout_s=600, upload_timeout_s=1) as live:
        (worker,) = workers(live.process)
        worker.suspend()
        with ThreadPoolExecutor(3) as pool:
            before = live.received()
            for number in range(1, 4):
                pool.submit(live.post, image)
                wait_until(lambda number=number: live.received() == before + number)
            try:
                yield live
            finally:
                worker.resume()


def test_a_full_queue_is_an_overload_with_the_time_to_retry(busy_server, image):
    before = calls(busy_server)
    with grpc.insecure_channel(busy_server.grpc_address) as channel:
        error = predict(channel, message(data=image))
    assert error_of(error) == (StatusCode.RESOURCE_EXHAUSTED, 429, "overloaded")
    trailers = dict(error.trailing_metadata())
    assert (trailers["retry-after"], trailers["grpc-retry-pushback-ms"]) == ("1", "1000")
    assert counted_since(busy_server, before) == {("overloaded", "429"): 1}


def test_a_message_that_does_not_arrive_is_refused(busy_server):
    ended = threading.Event()
    try:
        with grpc.insecure_channel(busy_server.grpc_address) as channel:
            with pytest.raises(grpc.RpcError) as raised:
                channel.stream_unary(f"/{SERVICE}/Predictions")(wait_for(ended), timeout=TIMEOUT_S)
            assert error_of(raised.value) == (StatusCode.DEADLINE_EXCEEDED, 408, "upload_timeout")
            with pytest.raises(grpc.RpcError) as raised:
                channel.stream_unary(f"/{SERVICE}/Ping")(wait_for(ended), timeout=TIMEOUT_S)
            assert raised.value.code() is StatusCode.DEADLINE_EXCEEDED
    finally:
        ended.set()


def test_a_call_without_a_deadline_ends_after_that_of_the_server(tiny_archive, image, tmp_path):
    with serving(tiny_archive, tmp_path / "log", deadline_ms=500) as live:
        (worker,) = workers(live.process)
        worker.suspend()
        with grpc.insecure_channel(live.grpc_address) as channel:
            error = predict(channel, message(data=image))
        assert error_of(error) == (StatusCode.DEADLINE_EXCEEDED, 504, "deadline_exceeded")
        assert calls(live) == {("deadline_exceeded", "504"): 1}


def test_a_stop_finishes_the_running_calls_and_refuses_others(tiny_archive, image, tmp_path):
    """The client's channel learns of the stop by HTTP/2's GOAWAY: its next call finds no server, instead of a reset."""
    with (
        serving(tiny_archive, tmp_path / "log", drain_timeout_s=60) as live,
        grpc.insecure_channel(live.grpc_address) as channel,
        ThreadPoolExecutor(3) as pool,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        (worker,) = workers(live.process)
        worker.suspend()
        before = live.received()
        running = [pool.submit(predict, channel, message(data=image)) for _ in range(3)]
        wait_until(lambda: live.received() == before + 3)
        live.process.send_signal(signal.SIGTERM)
        assert [response.status for response in watch] == [health_pb2.HealthCheckResponse.NOT_SERVING]
        wait_until(lambda: not listens("127.0.0.1", live.ports["grpc_port"]))
        assert predict(channel, message(data=image)).code() is StatusCode.UNAVAILABLE
        worker.resume()
        assert [json.loads(response.result())["label"] for response in running] == ["Ak"] * 3
        assert live.process.wait(STOP_S) == 0


def test_a_stop_does_not_wait_for_streams_of_reflection(tiny_archive, tmp_path):
    with (
        serving(tiny_archive, tmp_path / "log", drain_timeout_s=600) as live,
        grpc.insecure_channel(live.grpc_address) as channel,
    ):
        ended = threading.Event()
        requests = itertools.chain([reflection_pb2.ServerReflectionRequest(list_services="")], wait_for(ended))
        stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(requests, timeout=TIMEOUT_S)
        try:
            assert next(stream).HasField("list_services_response")
            live.process.send_signal(signal.SIGTERM)
            assert live.process.wait(STOP_S) == 0
        finally:
            ended.set()


def wait_for(event: threading.Event) -> Iterator[bytes]:
    """Yield nothing, once an event is set."""
    event.wait(TIMEOUT_S)
    yield from ()


def test_a_killed_gateway_harms_no_other_process(tiny_archive, image, tmp_path):
    with serving(tiny_archive, tmp_path / "log") as live:
        assert json.loads(live.call(image))["label"] == "Ak"
        (worker,) = workers(live.process)
        gateway(live.process).kill()
        assert live.post(image).json()["label"] == "Ak"
        assert workers(live.process) == [worker]
        assert calls(live)[("", "200")] == 1  # what an ended process has counted stays
