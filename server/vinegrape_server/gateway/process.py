"""The gateway's process, as the supervisor sees it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from vinegrape_server.errors import ServeError
from vinegrape_server.gateway.options import Options
from vinegrape_server.host.http import Address, reachable
from vinegrape_server.host.processes import die_with_parent
from vinegrape_server.host.signals import Stop
from vinegrape_server.plan import Plan, Served

_LISTENING = b"listening\n"
_VERSION_FILE = "model_version"
_POLL_S = 0.02
_END_TIMEOUT_S = 2


def options(plan: Plan, rest: Address, folder: Path) -> Options:
    """Return the gateway's options.

    Args:
        plan: what is served.
        rest: where predictions are forwarded to: TorchServe, or the edge's inner address.
        folder: the folder of the instance.
    """
    settings, metadata = plan.settings, plan.archive.metadata
    operations = Address(reachable(settings.operations_host), settings.operations_port)
    return Options(
        listen=f"{settings.host_of('grpc_port')}:{settings.grpc_port}",
        rest=f"{reachable(rest.host)}:{rest.port}" if rest.port else rest.host,
        operations=f"{operations.host}:{operations.port}",
        model_name=metadata.name,
        version_file=str(folder / _VERSION_FILE),
        max_request_bytes=settings.max_request_bytes,
        # As many as REST holds, and as many again: those that arrive, and those that REST is about to refuse
        max_calls=2 * (plan.slots + settings.queue_size),
        max_connections=settings.max_connections,
        deadline_ms=settings.deadline_ms,
        upload_timeout_s=settings.upload_timeout_s,
        keep_alive_timeout_s=settings.keep_alive_timeout_s,
        drain_timeout_s=settings.drain_timeout_s,
        log_format=settings.log_format,
    )


def environment(metrics_folder: Path, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment variables of the gateway.

    Args:
        metrics_folder: the folder of all processes' metrics.
        inherited: the variables of this process.
    """
    return {
        **inherited,
        "PROMETHEUS_MULTIPROC_DIR": str(metrics_folder),
        # gRPC's C++ code logs what clients send
        "GRPC_VERBOSITY": "NONE",
        # By default each message of some 100 KB costs page faults: a tenth of the gateway's CPU time. Memory of larger
        # messages is returned at once
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 24),
    }


class GatewayProcess:
    """A gateway that starts at construction. As a context manager it kills the gateway at the end.

    Args:
        options: the gateway's options.
        environment: all its environment variables.
        folder: its working directory.
        served: what is served.

    Attributes:
        pid: process id.
    """

    def __init__(self, options: Options, environment: Mapping[str, str], folder: Path, served: Served) -> None:
        self._served = served
        self._version_file = Path(options.version_file)
        self._version = ""
        self._write_version()
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", "-m", "vinegrape_server.gateway", *options.to_arguments()],
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # A new process group: Ctrl-C in the terminal does not reach it
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self.pid = self._process.pid
        self._output = b""
        assert self._process.stdout is not None  # noqa: S101
        os.set_blocking(self._process.stdout.fileno(), False)

    def __enter__(self) -> GatewayProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def is_running(self) -> bool:
        """Return whether the process runs."""
        return self._process.poll() is None

    def is_listening(self) -> bool:
        """Return whether the process runs and has begun to accept connections."""
        return self.is_running() and self._read() == _LISTENING

    def check(self) -> None:
        """Check that the gateway runs.

        Raises:
            ServeError: it has ended.
        """
        code = self._process.poll()
        if code is None:
            return
        reason = self._read().removeprefix(_LISTENING).decode(errors="replace").strip()
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raise ServeError(f"The gRPC gateway {how}. {reason or 'See the log above.'}")

    def files_changed(self) -> bool:
        """Return whether the served model has another version than the gateway."""
        return self._served.version != self._version

    def reload(self) -> bool:
        """Let the gateway read the version of the model again."""
        self._write_version()
        self._process.send_signal(signal.SIGHUP)
        return True

    def _write_version(self) -> None:
        self._version = self._served.version
        temporary = self._version_file.with_suffix(".new")
        temporary.write_text(self._version)
        temporary.replace(self._version_file)

    def stop_gracefully(self) -> None:
        """Ask the gateway to end: it refuses new calls, tells clients to reconnect, and finishes running calls."""
        self._process.terminate()

    def wait(self, stop: Stop, timeout_s: float) -> None:
        """Wait for the end: up to a time, or until an immediate stop is requested."""
        deadline = time.monotonic() + timeout_s
        while self.is_running() and time.monotonic() < deadline and not stop.immediate.wait(_POLL_S):
            pass

    def kill(self) -> None:
        """End the gateway at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _read(self) -> bytes:
        """Return what the process has written so far."""
        assert self._process.stdout is not None  # noqa: S101
        with contextlib.suppress(BlockingIOError, OSError):
            while chunk := os.read(self._process.stdout.fileno(), 4096):
                self._output += chunk
        return self._output
