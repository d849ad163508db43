"""gRPC calls that end early, stream, or carry too much."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from vinegrape_loadtests.chaos.protobuf import METHOD, predictions_request, predictions_request_of_keys
from vinegrape_loadtests.chaos.trial import Trial

_SERVICE = METHOD.rpartition("/")[0]
_THREADS = 8
_SEQUENCE = b"\x22\x01s"  # field 4, sequence_id "s"
# A server that is busy may also refuse a call
_EARLY_END = {"OK", "DEADLINE_EXCEEDED", "CANCELLED", "RESOURCE_EXHAUSTED"}


def stream_methods(trial: Trial) -> None:
    """Call the methods of TorchServe that answer with a stream, with and without a sequence id."""
    request = predictions_request(trial.images[0].image)
    with _channel(trial) as channel:
        one_to_many = channel.unary_stream(f"{_SERVICE}/StreamPredictions")
        many_to_many = channel.stream_stream(f"{_SERVICE}/StreamPredictions2")
        for _ in range(trial.count(3, 26)):
            trial.expect(_status(lambda: list(one_to_many(request, timeout=10))), {"OK", "UNIMPLEMENTED"})
            messages = [request + _SEQUENCE] * 3
            trial.expect(_status(lambda: list(many_to_many(iter(messages), timeout=10))), {"OK", "UNIMPLEMENTED"})  # noqa: B023


def early_ends(trial: Trial) -> None:
    """Call with deadlines of 10 to 100 ms, and cancel calls after as long, from several threads."""
    request = predictions_request(trial.images[0].image)
    end = time.monotonic() + trial.count(3, 20)
    lock = threading.Lock()

    def call_until_end(thread: int) -> None:
        with _channel(trial) as channel:
            call = channel.unary_unary(METHOD)
            number = thread
            while time.monotonic() < end:
                number += 7  # coprime to 91: every delay occurs
                seconds = (10 + number % 91) / 1000
                future = call.future(request, timeout=seconds if thread % 2 else 10)
                if thread % 2 == 0:
                    time.sleep(seconds)
                    future.cancel()
                status = _status(future.result)
                with lock:
                    trial.expect(status, _EARLY_END)

    trial.parallel(call_until_end, range(_THREADS))


def large_messages(trial: Trial) -> None:
    """Send a map of 3 million entries, and a message larger than the limit."""
    keys = predictions_request_of_keys(trial.count(100_000, 3_000_000))
    refused = {"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"}
    with _channel(trial) as channel:
        call = channel.unary_unary(METHOD)
        start = time.monotonic()
        trial.expect(_status(lambda: call(keys, timeout=60)), refused, "many keys")
        seconds = time.monotonic() - start
        trial.note(f"many keys: {seconds:.1f} s")
        trial.require(seconds <= 5, f"many keys took {seconds:.1f} s, 5 allowed")
        trial.expect(_status(lambda: call(predictions_request(bytes(40_000_000)), timeout=60)), refused, "40 MB")


def _status(call: Any) -> str:
    """Call a function; return the name of its gRPC status."""
    try:
        call()
    except grpc.FutureCancelledError:
        return "CANCELLED"
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


@contextmanager
def _channel(trial: Trial) -> Iterator[Any]:
    host, port = trial.target.grpc
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"{host}:{port}", options=options) as channel:
        yield channel
