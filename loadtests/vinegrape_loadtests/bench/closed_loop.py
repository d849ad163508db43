"""As many clients as connections, each of which asks again when it is answered: wrk over REST, h2load over gRPC.

Both are compiled and take little of the processors that they share with the server; how little is part of the result.
"""

from __future__ import annotations

import contextlib
import json
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

PERCENTILES = (50, 90, 99, 99.9)
_PROGRAMS = {"wrk": "wrk", "h2load": "nghttp2-client"}
_METHOD = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
_ROOT, _PROTO = Path(__file__).parents[3], "clients/inference.proto"
_TIMEOUT_S = 60

_SCRIPT = """
local bodies, asked = {}, 0
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
    asked = asked + 1
    return requests[(asked - 1) %% #requests + 1]
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
class Load:
    """What came of asking for some time.

    Attributes:
        requests: answered.
        seconds: that it took.
        failed: requests without an answer, or with one that is no success.
        latency_ms: percentiles, by "50" and so on.
        generator_cpu_s: that asking itself took of the processors.
    """

    requests: int
    seconds: float
    failed: int
    latency_ms: dict[str, float]
    generator_cpu_s: float


def check_programs() -> None:
    """Raise a ClickException if a load generator is not installed."""
    missing = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        raise click.ClickException(f"Install the load generators first; on Debian: apt-get install {' '.join(missing)}")


def rest(url: str, bodies: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Post bodies in turn with wrk."""
    with _files(bodies) as (paths, folder):
        names = "{" + ", ".join(json.dumps(str(path)) for path in paths) + "}"
        script = folder / "bodies.lua"
        script.write_text(_SCRIPT % (names, ", ".join(map(str, PERCENTILES))))
        output, cpu_s = _run(
            "wrk", "-t1", f"-c{connections}", f"-d{round(seconds)}s", f"--timeout={_TIMEOUT_S}s", "-s", str(script), url
        )
    result = json.loads(output.partition("RESULT ")[2])
    return Load(generator_cpu_s=cpu_s, **result)


def grpc(address: str, body: bytes, connections: int, seconds: float) -> Load:
    """Call Predictions with h2load, one call at a time on each connection."""
    with _files([_message(body)]) as ((path,), folder):
        log = folder / "latencies"
        output, cpu_s = _run(
            "h2load", "-t1", f"-c{connections}", "-m1", f"-D{round(seconds)}", f"--log-file={log}", "-d", str(path),
            "-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{address}{_METHOD}",
        )  # fmt: skip
        # start, status, microseconds; a line a request
        rows = np.loadtxt(log, dtype=np.int64, ndmin=2)
    failed = sum(int(count) for count in re.findall(r"(\d+) (?:failed|errored)", output))
    good = rows[rows[:, 1] == 200, 2] / 1e3
    # h2load begins to count when its connections stand, and ends with its time
    return Load(len(good), round(seconds), failed + len(rows) - len(good), percentiles(good), cpu_s)


def percentiles(latencies_ms: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    """The percentiles of a list of latencies; none of an empty one."""
    if not len(latencies_ms):
        return {}
    return {
        f"{p:g}": float(value) for p, value in zip(PERCENTILES, np.percentile(latencies_ms, PERCENTILES), strict=True)
    }


def _message(body: bytes) -> bytes:
    """A gRPC call's only message: uncompressed, its length, the request."""
    from grpc import protos

    if str(_ROOT) not in sys.path:
        sys.path.append(str(_ROOT))  # where it looks for the file
    request = protos(_PROTO).PredictionsRequest(model_name="vinegrape", input={"data": body})
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
    """What a program prints, and the seconds that it took of processors."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        raise click.ClickException(f"{command[0]} failed: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
