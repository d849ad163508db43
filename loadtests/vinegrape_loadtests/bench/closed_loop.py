"""Closed loops: each connection sends its next request when it has its response. wrk for REST, h2load for gRPC.

Both programs are compiled and need little CPU time on the cores that they share with the server. Each result contains
this CPU time.
"""

from __future__ import annotations

import contextlib
import json
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from vinegrape_client.inference_pb2 import PredictionsRequest
from vinegrape_loadtests.client import MODEL_NAME

PERCENTILES = (50, 90, 99, 99.9)
_PROGRAMS = {"wrk": "wrk", "h2load": "nghttp2-client"}
_METHOD = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
_TIMEOUT_S = 60

_SCRIPT = """
local bodies, sent = {}, 0
for _, path in ipairs(%s) do
    local file = io.open(path, "rb")
    bodies[#bodies + 1] = file:read("*a")
    file:close()
end
local requests = {}
function init()
    for _, body in ipairs(bodies) do
        local headers = { ["Content-Type"] = "application/octet-stream" }
        requests[#requests + 1] = wrk.format("POST", nil, headers, body)
    end
end
function request()
    sent = sent + 1
    return requests[(sent - 1) %% #requests + 1]
end
function done(summary, latency)
    local errors = summary.errors
    io.write(string.format('RESULT {"requests": %%d, "seconds": %%f, "failed": %%d, "latency_ms": {', summary.requests,
        summary.duration / 1e6, errors.connect + errors.read + errors.write + errors.status + errors.timeout))
    for index, p in ipairs({ %s }) do
        io.write(string.format('%%s"%%g": %%f', index > 1 and ", " or "", p, latency:percentile(p) / 1e3))
    end
    io.write("}}\\n")
end
"""


@dataclass(frozen=True)
class LoadResult:
    """The result of one load.

    Attributes:
        requests: number of requests with a response.
        seconds: duration.
        failed: number of requests without a response, or with another status than success.
        latency_ms: percentiles, by "50" and so on.
        generator_cpu_s: CPU seconds of the load generator.
    """

    requests: int
    seconds: float
    failed: int
    latency_ms: dict[str, float]
    generator_cpu_s: float


def check_programs() -> None:
    """Check that the load generators are installed.

    Raises:
        ClickException: one is missing.
    """
    missing = {program: package for program, package in _PROGRAMS.items() if shutil.which(program) is None}
    if missing:
        raise click.ClickException(
            f"Not installed: {', '.join(missing)}. On Debian: apt-get install {' '.join(missing.values())}"
        )


def rest(url: str, bodies: Sequence[bytes], connections: int, seconds: float) -> LoadResult:
    """Send images in turn with wrk, one request at a time on each connection.

    Args:
        url: URL to post to.
        bodies: encoded images.
        connections: number of connections.
        seconds: duration, rounded to whole seconds.

    Raises:
        ClickException: wrk fails.
    """
    with _files(bodies) as (paths, folder):
        names = "{" + ", ".join(json.dumps(str(path)) for path in paths) + "}"
        script = folder / "bodies.lua"
        script.write_text(_SCRIPT % (names, ", ".join(map(str, PERCENTILES))))
        output, cpu_s = _run(
            "wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", f"--timeout={_TIMEOUT_S}s", "-s", str(script), url
        )
    result = json.loads(output.partition("RESULT ")[2])
    return LoadResult(generator_cpu_s=cpu_s, **result)


def grpc(address: str, body: bytes, connections: int, seconds: float) -> LoadResult:
    """Call Predictions with h2load, one call at a time on each connection.

    Args:
        address: host and port.
        body: an encoded image.
        connections: number of connections.
        seconds: duration, rounded to whole seconds.

    Raises:
        ClickException: h2load fails.
    """
    with _files([_message(body)]) as ((path,), folder):
        log = folder / "latencies"
        output, cpu_s = _run(
            "h2load", "-t1", f"-c{connections}", "-m1", f"-D{round(seconds)}", f"--log-file={log}", "-d", str(path),
            "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{address}{_METHOD}",
        )  # fmt: skip
        # one line per request: start, status, microseconds
        rows = np.array([line.split() for line in log.read_text().splitlines()], np.int64).reshape(-1, 3)
    failed = sum(int(count) for count in re.findall(r"(\d+) (?:failed|errored)", output))
    successes = rows[rows[:, 1] == 200, 2] / 1e3
    failed += len(rows) - len(successes)
    # h2load counts for exactly its duration, from when its connections are open
    return LoadResult(len(successes), round(seconds), failed, percentiles(successes), cpu_s)


def percentiles(latencies_ms: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    """Return percentiles of latencies in ms, by "50" and so on; an empty dictionary if there are no latencies."""
    if not len(latencies_ms):
        return {}
    return {
        f"{p:g}": float(value) for p, value in zip(PERCENTILES, np.percentile(latencies_ms, PERCENTILES), strict=True)
    }


def _message(body: bytes) -> bytes:
    """Build the message of a gRPC call: the flag "not compressed", the length in 4 bytes, the request."""
    request = PredictionsRequest(model_name=MODEL_NAME, input={"data": body})
    message: bytes = request.SerializeToString()
    return b"\0" + len(message).to_bytes(4, "big") + message


@contextlib.contextmanager
def _files(bodies: Sequence[bytes]) -> Iterator[tuple[list[Path], Path]]:
    with tempfile.TemporaryDirectory() as name:
        paths = [Path(name) / f"{number}.body" for number in range(len(bodies))]
        for path, body in zip(paths, bodies, strict=True):
            path.write_bytes(body)
        yield paths, Path(name)


def _run(*command: str) -> tuple[str, float]:
    """Run a program; return its output and its CPU seconds. Raise a ClickException if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        raise click.ClickException(f"{command[0]} failed: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
