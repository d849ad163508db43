"""A known set of requests: each must be in exactly one series of the metrics."""

from __future__ import annotations

from collections import Counter

import grpc

from vinegrape_loadtests.chaos.protobuf import METHOD, predictions_request
from vinegrape_loadtests.chaos.sockets import post
from vinegrape_loadtests.chaos.trial import Trial

_REQUESTS = "vinegrape_requests_total"  # labels, sorted: error, status, transport
_REFUSALS = "vinegrape_refused_total"


def counts(trial: Trial) -> None:
    """Send valid, broken, unsupported, empty and too large requests over REST and gRPC, and read the metrics."""
    images = [known.image for known in trial.images]
    sets: dict[str, tuple[bytes, int]] = {
        "200": (images[0], trial.count(3, 30)),
        "422": (images[0][: len(images[0]) // 2], trial.count(2, 20)),
        "415": (b"This is no image.", trial.count(2, 20)),
        "413": (bytes(31_000_000), 2),
    }
    before = _read(trial)
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
    grown = _read(trial)
    grown.subtract(before)
    grown = +grown
    trial.note(", ".join(f"{transport} {status}: {count:g}" for (transport, status), count in sorted(grown.items())))
    for key in sorted({*expected, *grown}):
        trial.require(grown[key] == expected[key], f"{' '.join(key)}: {grown[key]:g} counted, {expected[key]:g} sent")


def _read(trial: Trial) -> Counter[tuple[str, str]]:
    """Return the requests by transport and status, of workers and of what refuses requests before them."""
    found: Counter[tuple[str, str]] = Counter()
    for (name, *labels), value in trial.target.metrics().items():
        if name in (_REQUESTS, _REFUSALS):
            _, status, transport = labels
            found[transport, status] += int(value)
    return found
