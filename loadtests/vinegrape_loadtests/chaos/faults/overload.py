"""More requests than the server can answer, and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Sequence

import grpc
import psutil

from vinegrape_loadtests.chaos.answers import LOST, REFUSED, RIGHT, WRONG, Answer, KnownImage
from vinegrape_loadtests.chaos.http2_client import Http2Client
from vinegrape_loadtests.chaos.http_client import build_request
from vinegrape_loadtests.chaos.load import LoadResult, OpenLoad, closed_loop, run_load
from vinegrape_loadtests.chaos.protobuf import METHOD, predictions_request
from vinegrape_loadtests.chaos.sockets import connected, post
from vinegrape_loadtests.chaos.trial import Trial, percentile_ms
from vinegrape_loadtests.images import draw_photo
from vinegrape_loadtests.local.processes import cpu_seconds

LEAF_GOODPUT, PHOTO_GOODPUT = 0.9, 0.75  # of the peak
MOST_P99_RATIO = 3  # of accepted requests, to p99 at 0.7 of the peak
REFUSED_WITHIN_MS = 100
NORMAL_WITHIN_S = 2
PHOTO_TIMEOUT_S = 2
_TIMEOUT_S = 15
_CONNECTIONS = 16
_FACTORS = (2, 5)
_LEAVE_AFTER_S = 0.1
_STREAMS = 30  # of a connection: the server allows 32


def leaves(trial: Trial) -> None:
    """Send leaves at 2 and 5 times the peak."""
    _overload(trial, trial.images, _TIMEOUT_S, LEAF_GOODPUT)


def photos(trial: Trial) -> None:
    """Send 12-megapixel photos at 2 and 5 times their peak; their clients leave after 2 s."""
    photo = draw_photo()
    response, _ = post(trial.target.rest, photo)
    trial.require(response.outcome == "200", f"a photo got {response.outcome} before the overload")
    if response.outcome == "200":
        known = KnownImage(photo, json.loads(response.body)["probabilities"])
        _overload(trial, (known,), PHOTO_TIMEOUT_S, PHOTO_GOODPUT)


def clients_leave(trial: Trial) -> None:
    """Send many requests at once whose clients leave after 100 ms; their work is not started."""
    image, count = trial.images[0].image, trial.count(40, 100)
    for name, send in {"REST over HTTP/2": _leave_http2, "gRPC": _leave_grpc}.items():
        _wait_until_idle(trial)
        before = trial.target.metric("vinegrape_images_total")
        send(trial, image, count)
        _wait_until_idle(trial)
        computed = trial.target.metric("vinegrape_images_total") - before
        trial.note(f"{name}: {computed:.0f} of {count} computed")
        # What 100 ms allow, what the server's slots held when the clients left, and some that were being removed
        allowed = 0.12 * trial.peak + 8
        trial.require(computed <= allowed, f"{name}: {computed:.0f} of {count} computed, {allowed:.0f} allowed")


def deadlines(trial: Trial) -> None:
    """Send more requests than the queue holds time for, each with a deadline of 150 ms: 504 in time, not started."""
    request = build_request(trial.images[0].image, headers=("x-request-timeout-ms: 150", "Connection: close"))
    count = trial.count(30, 100)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(connected(trial.target.rest)) for _ in range(count)]
        start = time.monotonic()
        for connection in connections:
            connection.send(request)
        for connection in connections:
            trial.expect(connection.response().outcome, {"200", "429", "504"})
    seconds = time.monotonic() - start
    trial.note(f"the last answer after {seconds:.2f} s")
    trial.require(seconds <= 1.5, f"the last answer came after {seconds:.2f} s; the deadline was 0.15 s")


def _overload(trial: Trial, images: Sequence[KnownImage], timeout_s: float, goodput: float) -> None:
    target, seconds = trial.target, trial.count(3, 10)
    asyncio.run(closed_loop(target.rest, images, _CONNECTIONS, 1))
    own = time.process_time()
    answers = asyncio.run(closed_loop(target.rest, images, _CONNECTIONS, seconds))
    peak = sum(answer.outcome == RIGHT for answer in answers) / seconds
    peak_cores = (time.process_time() - own) / seconds
    trial.require(peak > 0, "no right answer in a closed loop")
    if not peak:
        return
    usual = _load(trial, images, 0.7 * peak, seconds, timeout_s)
    usual_p99 = percentile_ms([a.seconds for a in usual.answers if a.outcome == RIGHT], 0.99) or 0
    trial.note(f"peak {peak:.1f}/s; p99 at 0.7 of it {usual_p99:.0f} ms")
    for factor in _FACTORS:
        before, idle = cpu_seconds(target.pid), psutil.cpu_times().idle
        loaded = _load(trial, images, factor * peak, seconds, timeout_s)
        used, idle = cpu_seconds(target.pid), psutil.cpu_times().idle - idle
        used.subtract(before)
        known = {**used, "load generator": loaded.cpu_s, "idle": idle}
        known["other programs"] = (psutil.cpu_count() or 1) * loaded.seconds - sum(known.values())
        trial.note(f"{factor}x, cores: {', '.join(f'{kind} {s / loaded.seconds:.2f}' for kind, s in known.items())}")
        _judge(trial, loaded, factor, peak, peak_cores, usual_p99, goodput)
        _require_normal(trial, images, peak, usual_p99, timeout_s)


def _load(trial: Trial, images: Sequence[KnownImage], rate: float, seconds: float, timeout_s: float) -> LoadResult:
    return run_load(OpenLoad(trial.target.rest, tuple(images), rate, seconds, timeout_s))


def _judge(
    trial: Trial, loaded: LoadResult, factor: int, peak: float, peak_cores: float, usual_p99: float, goodput: float
) -> None:
    """Compare one overload with the limits.

    The generator runs on the server's cores. What it takes beyond what the closed loop took is not the server's, so the
    peak is reduced by that share of the cores.
    """
    cores = len(psutil.Process().cpu_affinity())
    generator = loaded.cpu_s / loaded.seconds
    right = [a for a in loaded.answers if a.outcome == RIGHT]
    # Answers within the load's time: those after it had the machine for themselves
    rate = sum(a.end <= loaded.end for a in right) / loaded.seconds
    available = peak * max(0.0, 1 - max(0.0, generator - peak_cores) / (cores - peak_cores))
    p99 = percentile_ms([a.seconds for a in right], 0.99) or 0
    refused_p99 = percentile_ms([a.seconds for a in loaded.answers if a.outcome == REFUSED], 0.99) or 0
    outcomes = Counter(a.detail if a.outcome in (LOST, WRONG) else a.outcome for a in loaded.answers)
    for outcome, count in outcomes.items():
        trial.outcomes[f"{factor}x: {outcome}"] += count
    trial.note(
        f"{factor}x: {rate:.1f} right/s = {rate / peak:.2f} of the peak, {rate / available:.2f} without the "
        f"generator's {generator:.2f} cores; p99 of accepted {p99:.0f} ms, of 429 {refused_p99:.0f} ms; sent late by "
        f"{1000 * loaded.late_s:.0f} ms (p99)"
    )
    trial.require(
        rate >= goodput * available, f"{factor}x: goodput {rate / available:.2f}, at least {goodput} expected"
    )
    trial.require(
        p99 <= MOST_P99_RATIO * usual_p99,
        f"{factor}x: p99 of accepted {p99:.0f} ms, {MOST_P99_RATIO * usual_p99:.0f} ms allowed",
    )
    trial.require(
        refused_p99 <= REFUSED_WITHIN_MS,
        f"{factor}x: 429 after {refused_p99:.0f} ms (p99), {REFUSED_WITHIN_MS} allowed",
    )
    other = {outcome: count for outcome, count in outcomes.items() if outcome not in (RIGHT, REFUSED)}
    trial.require(not other, f"{factor}x: neither right nor 429: {other}")


def _require_normal(
    trial: Trial, images: Sequence[KnownImage], peak: float, usual_p99: float, timeout_s: float
) -> None:
    """After an overload, send at 0.3 of the peak; the last slow or failed request was due within 2 s."""
    after = _load(trial, images, 0.3 * peak, NORMAL_WITHIN_S + 2, timeout_s)

    def is_slow(answer: Answer) -> bool:
        return answer.outcome != RIGHT or 1000 * answer.seconds > 1.5 * usual_p99

    # A single slow one among many is the machine's, not the overload's
    slow = sorted(answer.due - after.start for answer in after.answers if is_slow(answer))
    late = [due for due in slow if due > NORMAL_WITHIN_S]
    trial.require(
        len(late) <= 0.02 * len(after.answers) + 1,
        f"{len(late)} requests were slow or failed more than {NORMAL_WITHIN_S} s after the overload",
    )


def _leave_http2(trial: Trial, image: bytes, count: int) -> None:
    async def send_and_leave() -> None:
        clients = [Http2Client(*trial.target.rest) for _ in range(1 + count // _STREAMS)]
        calls = [asyncio.create_task(clients[number // _STREAMS].send(image, _TIMEOUT_S)) for number in range(count)]
        await asyncio.sleep(_LEAVE_AFTER_S)
        for client in clients:
            client.close()
        await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(send_and_leave())


def _leave_grpc(trial: Trial, image: bytes, count: int) -> None:
    request = predictions_request(image)
    host, port = trial.target.grpc
    with grpc.insecure_channel(f"{host}:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(METHOD)
        futures = [call.future(request, timeout=30) for _ in range(count)]
        time.sleep(_LEAVE_AFTER_S)
        for future in futures:
            future.cancel()


def _wait_until_idle(trial: Trial) -> None:
    """Wait until the number of computed images has not grown for half a second."""
    last, since = -1.0, time.monotonic()
    while time.monotonic() - since < 0.5:
        now = trial.target.metric("vinegrape_images_total")
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.05)
