"""A known set of requests: each must be in exactly one series of the metrics."""

from __future__ import annotations

import time
from collections import Counter

import grpc

from vinegrape_loadtests.chaos.protobuf import METHOD, predictions_request
from vinegrape_loadtests.chaos.sockets import post
from vinegrape_loadtests.chaos.trial import Trial

# Seconds between two readings
_SETTLED_S = 0.5

# Labels, sorted: error, status, transport. Edge and gateway count every response; without the edge, REST requests are
# counted by the workers, which do not see those that TorchServe refuses.
_RESPONSES, _REQUESTS = "vinegrape_responses_total", "vinegrape_requests_total"


def counts(trial: Trial) -> None:
    """Send valid, broken, unsupported, empty and too large requests over REST and gRPC, and read the metrics."""
    images = [known.image for known in trial.images]
    sets: dict[str, tuple[bytes, int]] = {
        "200": (images[0], trial.count(3, 30)),
        "422": (images[0][: len(images[0]) // 2], trial.count(2, 20)),
        "415": (b"This is no image.", trial.count(2, 20)),
        "413": (bytes(31_000_000), 2),
    }
    before = _settled(trial)
    for status, (body, count) in sets.items():
        for _ in range(count):
            response, _ = post(trial.target.rest, body)
            trial.expect(response.outcome, {status}, "REST")
    host, port = trial.target.grpc
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"{host}:{port}", options=options) as channel:
        call = channel.unary_unary(METHOD)
        for body, count in sets.values():
            for _ in range(count):
                try:
                    call(predictions_request(body), timeout=30)
                    trial.outcomes["gRPC: OK"] += 1
                except grpc.RpcError as error:
                    trial.outcomes[f"gRPC: {error.code().name}"] += 1
    expected = Counter(
        {(transport, status): count for transport in ("rest", "grpc") for status, (_, count) in sets.items()}
    )
    if not trial.edge:
        del expected["rest", "413"]
    grown = _settled(trial)
    grown.subtract(before)
    trial.note(", ".join(f"{transport} {status}: {count:g}" for (transport, status), count in sorted((+grown).items())))
    for key in sorted({*expected, *+grown}):
        trial.require(grown[key] == expected[key], f"{' '.join(key)}: {grown[key]:g} counted, {expected[key]:g} sent")


def _settled(trial: Trial) -> Counter[tuple[str, str]]:
    """Return the requests by transport and status when they no longer change: the edge counts from its access log."""
    before = _read(trial)
    while True:
        time.sleep(_SETTLED_S)
        after = _read(trial)
        if after == before:
            return after
        before = after


def _read(trial: Trial) -> Counter[tuple[str, str]]:
    """Return the requests by transport and status."""
    counters: dict[str, Counter[tuple[str, str]]] = {_RESPONSES: Counter(), _REQUESTS: Counter()}
    for (name, *labels), value in trial.target.metrics().items():
        if name in counters:
            _, status, transport = labels
            counters[name][transport, status] += int(value)
    responses, requests = counters[_RESPONSES], counters[_REQUESTS]
    seen = {transport for transport, _ in responses}
    return responses + Counter({key: count for key, count in requests.items() if key[0] not in seen})
