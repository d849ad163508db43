"""Connections that pipeline, do not read, stay silent, trickle or flood; framing that can be read in two ways."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator

from vinegrape_loadtests.chaos import http2_frames as h2
from vinegrape_loadtests.chaos.http_client import build_request
from vinegrape_loadtests.chaos.sockets import CLOSED, RESET, TIMEOUT, connected, exchange
from vinegrape_loadtests.chaos.trial import Trial
from vinegrape_loadtests.client import PREDICTIONS_PATH, instances_body
from vinegrape_server.settings import LOOPBACK

# The option that rows about slow clients start the server with: nobody wants to wait for the default
SLOW_CLIENT_LIMIT_S = 3
SLOW_CLIENT_OPTIONS = (
    "--upload-timeout-s", str(SLOW_CLIENT_LIMIT_S), "--keep-alive-timeout-s", str(SLOW_CLIENT_LIMIT_S)
)  # fmt: skip
_TOLERANCE_S = 4  # from the limit to the end of the connection
# Any other status, such as 415, says that the request has reached a worker
_FRAMING_REFUSED = {"400", "405", "501", "505", CLOSED, RESET}
# RFC 9112 (6.3) lets a proxy believe the Transfer-Encoding alone, if it then closes the connection
_ALSO_ALLOWED = {"Content-Length and Transfer-Encoding": {"415"}}
_CLIENT_ADDRESSES = [f"127.0.0.{number}" for number in range(2, 12)]


def pipelined(trial: Trial) -> None:
    """Send requests without waiting for responses: a flood of GET, and pairs of POST whose answers must be in order."""
    get = build_request(method="GET", headers=("Accept: application/json",)) * 50
    seconds = trial.count(1, 5)
    statuses: list[int] = trial.parallel(
        lambda _: _flood(trial.target.rest, get, seconds, read=True), range(trial.count(2, 4))
    )
    trial.note(f"{sum(statuses)} bytes of answers to pipelined GET")
    image = trial.images[0].image
    pair = build_request(instances_body([image, image]), "application/json") + build_request(image)
    for _ in range(trial.count(3, 10)):
        with connected(trial.target.rest) as connection:
            connection.send(pair)
            first, second = connection.response(), connection.response()
        order = [_answer_kind(first.body), _answer_kind(second.body)]
        # The server may also close the connection after the first answer: the client then knows what was not answered
        right = order == ["list", "one"] or (order[0] == "list" and second.outcome in (CLOSED, RESET))
        trial.outcomes["pair in order" if order == ["list", "one"] else f"pair: {order}"] += 1
        trial.require(right, f"answers to two pipelined requests: {order}")


def unread_answers(trial: Trial) -> None:
    """Send requests on 20 connections and read no answer: model descriptions, and `OPTIONS /`."""
    describe = build_request(method="GET", headers=("Accept: application/json",)) * 50
    options = build_request(method="OPTIONS", path="/") * 50
    seconds = trial.count(2, 10)
    floods = [describe, options] * trial.count(3, 10)
    sent = trial.parallel(lambda data: _flood(trial.target.rest, data, seconds, read=False), floods)
    trial.note(f"{sum(sent) / 1e6:.1f} MB of requests were taken from {len(floods)} connections")


def slow_clients(trial: Trial) -> None:
    """Open connections that are idle, trickle a head, or trickle a body, and wait until the server closes them."""
    count = trial.count(10, 200)
    head = build_request(bytes(1000))[:40]
    upload = build_request(bytes(14_000_000))[: 1_000_000 if trial.long else 10_000]
    small = build_request(bytes(50_000))[:1000]
    kinds: dict[str, tuple[int, bytes, bytes, set[str]]] = {
        # name: connections, what is sent at once, what is sent again and again, what may happen
        "idle": (count, b"", b"", {CLOSED, RESET, "408"}),
        "trickled head": (count, head, b"x", {CLOSED, RESET, "408", "400"}),
        "trickled body": (count // 2, small, b"x", {CLOSED, RESET, "408"}),
        "trickled upload": (trial.count(5, 50), upload, b"x", {CLOSED, RESET, "408", "429"}),
    }
    for kind, (number, first, more, allowed) in kinds.items():
        start = time.monotonic()
        outcomes = _hold(trial.target.rest, number, first, more, SLOW_CLIENT_LIMIT_S + _TOLERANCE_S)
        for outcome in outcomes:
            trial.expect(outcome, allowed, kind)
        trial.note(f"{kind}: closed after {time.monotonic() - start:.1f} s")


def many_connections(trial: Trial) -> None:
    """Open 1,000 idle connections from ten addresses, and more than one address may have from another."""
    per_address = trial.count(20, 100)
    with contextlib.ExitStack() as stack:
        for address in _CLIENT_ADDRESSES:
            for _ in range(per_address):
                stack.enter_context(connected(trial.target.rest, address))
        time.sleep(trial.count(1, 3))
        trial.outcomes["idle connections"] = per_address * len(_CLIENT_ADDRESSES)
        if trial.edge:
            opened = [stack.enter_context(connected(trial.target.rest, "127.0.0.100")) for _ in range(300)]
            opened[-1].send(build_request(method="GET", headers=("Accept: application/json",)))
            trial.expect(opened[-1].response().outcome, {"429", CLOSED, RESET}, "request on the 300th of one address")


def http2_floods(trial: Trial) -> None:
    """Send floods of HTTP/2 frames: rapid reset, ping, settings, continuation, empty data."""
    headers = h2.post_headers(PREDICTIONS_PATH, content_type="application/octet-stream")
    continuation = h2.frame(h2.HEADERS, 0, 1, headers) + h2.frame(h2.CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 200) * 100

    def resets() -> Iterator[bytes]:
        for first in range(1, 2_000_001, 200):
            yield b"".join(
                h2.frame(h2.HEADERS, h2.END_HEADERS, stream, headers)
                + h2.frame(h2.RST_STREAM, 0, stream, h2.CANCEL.to_bytes(4, "big"))
                for stream in range(first, first + 200, 2)
            )

    def repeat(data: bytes) -> Callable[[], Iterator[bytes]]:
        def chunks() -> Iterator[bytes]:
            while True:
                yield data

        return chunks

    def after(first: bytes, data: bytes) -> Callable[[], Iterator[bytes]]:
        def chunks() -> Iterator[bytes]:
            yield first
            while True:
                yield data

        return chunks

    open_stream = h2.frame(h2.HEADERS, h2.END_HEADERS, 1, headers)
    floods: dict[str, Callable[[], Iterator[bytes]]] = {
        "rapid reset": resets,
        "ping": repeat(h2.frame(h2.PING, 0, 0, bytes(8)) * 200),
        "settings": repeat(h2.frame(h2.SETTINGS, 0, 0) * 200),
        "empty data": after(open_stream, h2.frame(h2.DATA, 0, 1) * 200),
        "continuation": after(continuation, h2.frame(h2.CONTINUATION, 0, 1, b"\x00\x01a\x01b" * 200) * 20),
    }
    seconds = trial.count(1, 3)
    for name, chunks in floods.items():
        ends = trial.parallel(
            lambda _, chunks=chunks: _flood_frames(trial.target.grpc, chunks(), seconds),  # type: ignore[misc]
            range(trial.count(1, 2)),
        )
        for end in ends:
            trial.outcomes[f"{name}: {end}"] += 1


def manners(trial: Trial) -> None:
    """Send what ordinary clients send: Connection: close, HTTP/1.0, half-closed connections, Expect: 100-continue."""
    image, rest = trial.images[0].image, trial.target.rest
    close = build_request(image, headers=("Connection: close",))
    probes: dict[str, Callable[[], str]] = {
        "Connection: close": lambda: _answered_and_closed(rest, close, "200"),
        "HTTP/1.0": lambda: _answered_and_closed(
            rest, build_request(image).replace(b"HTTP/1.1", b"HTTP/1.0", 1), "200"
        ),
        "half-closed": lambda: _half_closed(rest, build_request(image)),
        "Expect: 100-continue": lambda: _expect_continue(rest, image),
        "an error ends with FIN": lambda: _answered_and_closed(
            rest, build_request(b"This is no image.", headers=("Connection: close",)), "415"
        ),
        "large, refused early": lambda: _answered_and_closed(
            rest, build_request(bytes(31_000_000), headers=("Connection: close",)), "413"
        ),
    }
    for name, probe in probes.items():
        for _ in range(trial.count(1, 5)):
            problem = probe()
            trial.outcomes[f"{name}: {problem or 'right'}"] += 1
            trial.require(not problem, f"{name}: {problem}")


def ambiguous_framing(trial: Trial) -> None:
    """Send heads and chunks that two parsers could read differently; each with a second request."""
    hidden = build_request(method="GET", headers=("Accept: application/json",))
    for name, data in _ambiguous(hidden).items():
        with connected(trial.target.rest, timeout_s=10) as connection:
            connection.send(data)
            first, second = connection.response(), connection.response()  # the second request must not be seen
        refused = first.outcome in _FRAMING_REFUSED | _ALSO_ALLOWED.get(name, set())
        trial.outcomes[first.outcome] += 1
        trial.require(refused, f"{name}: {first.outcome}")
        trial.require(second.outcome in (CLOSED, RESET), f"{name}: then the second request got {second.outcome}")


def paths_and_methods(trial: Trial) -> None:
    """Request each way to the model that is not offered, and TorchServe's own pages."""
    image = trial.images[0].image
    paths = (
        "/api-description", "/predictions", "/predictions/other", "/predictions/vinegrape/1.0",
        "/predictions/vinegrape/", "/predictions/vinegrape/../vinegrape", "/models/vinegrape/invoke", "/models",
        "/invocations", "/vinegrape/predict", "/explanations/vinegrape", "/v1/models/vinegrape:explain",
        "/v2/models/other/infer", "/wfpredict/vinegrape", "/metrics",
    )  # fmt: skip
    for path in paths:
        response, _ = exchange(trial.target.rest, build_request(image, path=path, headers=("Connection: close",)))
        trial.expect(response.outcome, {"404"}, f"POST {path}")
        trial.require(b'"error"' in response.body, f"POST {path}: no error body of ours: {response.body[:60]!r}")
    response, _ = exchange(trial.target.rest, build_request(image, path="/", headers=("Connection: close",)))
    trial.expect(response.outcome, {"405"}, "POST /")
    for method in ("DELETE", "PATCH", "TRACE"):
        response, _ = exchange(trial.target.rest, build_request(method=method, headers=("Connection: close",)))
        trial.expect(response.outcome, {"405"}, method)


def silent_operations(trial: Trial) -> None:
    """Open 40 connections to the operations port and say nothing, while `/readyz` is requested."""
    address = (LOOPBACK, trial.target.server.ports["operations_port"])
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(connected(address))
        time.sleep(0.2)
        for _ in range(trial.count(5, 36)):
            trial.expect(trial.target.probe(timeout_s=2), {"ok"}, "/readyz")
            time.sleep(0.1)


def _flood(address: tuple[str, int], data: bytes, seconds: float, *, read: bool) -> int:
    """Send the same bytes again and again; return how many bytes were received, or sent if nothing is read."""
    total, received, end = 0, 0, time.monotonic() + seconds
    with contextlib.suppress(OSError), connected(address, timeout_s=0.2) as connection:
        while time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                total += connection.socket.send(data)
            if read:
                part = connection.drain()
                if part is None:
                    break
                received += part
    return received if read else total


def _flood_frames(address: tuple[str, int], chunks: Iterator[bytes], seconds: float) -> str:
    """Send frames until the server closes the connection or the time is over; return what happened."""
    sent, end = 0, time.monotonic() + seconds
    try:
        with connected(address, timeout_s=1) as connection:
            connection.socket.sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0))
            for chunk in chunks:
                connection.socket.sendall(chunk)
                sent += 1
                if connection.drain() is None:
                    return "closed by the server"
                if time.monotonic() > end:
                    break
    except TimeoutError:
        return "slowed down by the server"
    except ConnectionError:
        return "closed by the server"
    return "taken"


def _hold(address: tuple[str, int], count: int, first: bytes, more: bytes, timeout_s: float) -> list[str]:
    """Open connections, send something now and then, and wait for what the server does: a status, or an end."""
    ends: list[str] = []
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(connected(address, _CLIENT_ADDRESSES[number % len(_CLIENT_ADDRESSES)]))
            for number in range(count)
        ]
        for connection in connections:
            connection.send(first)

        def trickle() -> None:
            while more and not stop.wait(0.5):
                for connection in connections:
                    with contextlib.suppress(OSError):
                        connection.socket.send(more, socket.MSG_DONTWAIT)

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        deadline = time.monotonic() + timeout_s
        for connection in connections:
            connection.socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                received = connection.socket.recv(4096)
                ends.append(received[9:12].decode("ascii", "replace") if received else CLOSED)
            except TimeoutError:
                ends.append(TIMEOUT)
            except ConnectionError:
                ends.append(RESET)
        stop.set()
        thread.join()
    return ends


def _answer_kind(body: bytes) -> str:
    """Return "list" for the answer to several instances, "one" for the answer to one image, else its start."""
    with contextlib.suppress(ValueError):
        keys = json.loads(body).keys()
        return "list" if "predictions" in keys else "one" if "label" in keys else ", ".join(keys)
    return repr(body[:40])


def _answered_and_closed(address: tuple[str, int], data: bytes, status: str) -> str:
    """Send a request that closes its connection; return what is wrong with the answer or the end."""
    with connected(address, timeout_s=10) as connection:
        connection.send(data)
        response = connection.response()
        if response.outcome != status:
            return f"{response.outcome} instead of {status}"
        end = connection.wait_for_end(3)
        return "" if end == CLOSED else f"the connection ended with {end}"


def _half_closed(address: tuple[str, int], data: bytes) -> str:
    with connected(address, timeout_s=10) as connection:
        connection.send(data)
        connection.socket.shutdown(socket.SHUT_WR)
        response = connection.response()
        return "" if response.outcome == "200" else f"{response.outcome} instead of 200"


def _expect_continue(address: tuple[str, int], image: bytes) -> str:
    request = build_request(image, headers=("Expect: 100-continue",))
    head = request[: len(request) - len(image)]
    with connected(address, timeout_s=10) as connection:
        connection.send(head)
        response = connection.response()
        if response.outcome != "100":
            return f"{response.outcome} instead of 100"
        connection.send(image)
        response = connection.response()
        return "" if response.outcome == "200" else f"{response.outcome} instead of 200"


def _ambiguous(hidden: bytes) -> dict[str, bytes]:
    """Return requests whose end two parsers could see at different places, by name, each followed by another request.

    Two are not among them, because HAProxy passes on what it has read itself, and they mean the same to everyone who
    accepts them: lines that end with LF (RFC 9112, 2.2), and a bare LF in a chunk extension.
    """
    chunked = b"Transfer-Encoding: chunked\r\n"
    chunks = b"4\r\nabcd\r\n0\r\n\r\n"

    def head(*lines: bytes, start: bytes = b"POST %b HTTP/1.1" % PREDICTIONS_PATH.encode()) -> bytes:
        return b"\r\n".join([start, b"Host: vinegrape", b"Content-Type: image/png", *lines]) + b"\r\n"

    requests = {
        "Content-Length and Transfer-Encoding": head(b"Content-Length: 4") + chunked + b"\r\n" + chunks,
        "Content-Length: +3": head(b"Content-Length: +3") + b"\r\nabc",
        "Content-Length: -1": head(b"Content-Length: -1") + b"\r\nabc",
        "Content-Length: 3, 4": head(b"Content-Length: 3, 4") + b"\r\nabcd",
        "two Content-Lengths": head(b"Content-Length: 3", b"Content-Length: 4") + b"\r\nabcd",
        "Content-Length: 0x3": head(b"Content-Length: 0x3") + b"\r\nabc",
        "chunked, identity": head(b"Transfer-Encoding: chunked, identity") + b"\r\n" + chunks,
        "unknown transfer coding": head(b"Transfer-Encoding: xchunked") + b"\r\n" + chunks,
        "chunk size +4": head() + chunked + b"\r\n+4\r\nabcd\r\n0\r\n\r\n",
        "chunk size 0x4": head() + chunked + b"\r\n0x4\r\nabcd\r\n0\r\n\r\n",
        "chunk longer than its size": head() + chunked + b"\r\n2\r\nabcd\r\n0\r\n\r\n",
        "two Hosts": head(b"Host: other", b"Content-Length: 3") + b"\r\nabc",
        "space before the colon": head(b"Content-Length : 3") + b"\r\nabc",
        "control character before a name": head(b"\x01Content-Length: 3") + b"\r\nabc",
        "folded header": head(b"X-Folded: a\r\n b", b"Content-Length : 3") + b"\r\nabc",
        "HTTP/9.9": head(b"Content-Length: 3", start=b"POST %b HTTP/9.9" % PREDICTIONS_PATH.encode()) + b"\r\nabc",
        "no version": b"POST %b\r\n\r\n" % PREDICTIONS_PATH.encode(),
        "TRACE": re.sub(rb"^POST", b"TRACE", head(b"Content-Length: 3", b"Connection: close")) + b"\r\nabc",
    }
    return {name: request + hidden for name, request in requests.items()}
