"""The process of the edge."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import IO, cast

from vinegrape_handler.errors import SettingError
from vinegrape_server.edge import admin, configuration
from vinegrape_server.edge.access_log import AccessLog
from vinegrape_server.errors import ServeError
from vinegrape_server.host.log import log
from vinegrape_server.host.processes import die_with_parent
from vinegrape_server.plan import Served

_POLL_S = 0.02
_RELOAD_TIMEOUT_S = 10
_LOG_END_S = 5
_ADMIN_TIMEOUT_S = 5
_PIPE_BYTES = 1 << 20  # some 2,000 lines


class EdgeProcess:
    """A HAProxy that starts at construction. As a context manager it kills HAProxy at the end.

    The public port is closed until `open`: a client that balances between servers takes an open port for a server that
    is ready.

    Args:
        served: what is served.
        haproxy: the program.
        folder: the folder of the instance, filled by `configuration.prepare`.
        access_log: reads HAProxy's log.

    Attributes:
        pid: process id; a reload changes it.
    """

    def __init__(self, served: Served, haproxy: Path, folder: Path, access_log: AccessLog) -> None:
        self._served, self._haproxy, self._folder, self._log = served, haproxy, folder, access_log
        self._old: list[subprocess.Popen[bytes]] = []  # processes that finish their requests after a reload
        self._watched = self._fingerprint()
        self._process = self._start()
        self._command("disable frontend public")

    @property
    def pid(self) -> int:
        """The process id of the HAProxy that accepts connections."""
        return self._process.pid

    def __enter__(self) -> EdgeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def is_running(self) -> bool:
        """Return whether HAProxy runs."""
        return self._process.poll() is None

    def check(self) -> None:
        """Check that HAProxy runs.

        Raises:
            ServeError: it has ended.
        """
        code = self._process.poll()
        if code is not None:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise ServeError(f"HAProxy {how}.")

    def open(self) -> None:
        """Open the public port."""
        self._command("enable frontend public")

    def files_changed(self) -> bool:
        """Return whether keys, certificate or the served model differ from those of the last start or reload."""
        return self._fingerprint() != self._watched

    def reload(self) -> bool:
        """Read keys, certificate and the version of the model again, without closing a connection or refusing one.

        A new HAProxy takes over the listening sockets, and the old one finishes its requests.

        Returns:
            False if the files are not valid; then the old HAProxy continues, and the reason is logged.
        """
        self._watched = self._fingerprint()
        self._old = [process for process in self._old if process.poll() is None]
        try:
            configuration.prepare(self._served.plan, self._haproxy, self._folder)
        except SettingError as error:
            log(f"The edge keeps its keys and its certificate. {error}")
            return False
        old = self._process
        new = self._start("-x", configuration.ADMIN_SOCKET, "-sf", str(old.pid))
        deadline = time.monotonic() + _RELOAD_TIMEOUT_S
        while self._serving_pid() != new.pid and new.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if new.poll() is not None:
            log("HAProxy could not reload; the old process continues.")
            return False
        self._old.append(old)
        self._process = new
        return True

    def stop_gracefully(self) -> None:
        """Accept no new connections, and close each connection after its next response; HTTP/2 gets a GOAWAY.

        HAProxy goes on until `kill`, and idle connections stay open. HAProxy's soft stop, SIGUSR1, would also close the
        private entry, which requests with a deadline of their own and gRPC calls still need.
        """
        with contextlib.suppress(OSError):
            admin.run_command(self._folder, "shutdown frontend public")

    def kill(self) -> None:
        """End HAProxy at once, those that finish their requests after a reload too."""
        for process in (self._process, *self._old):
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait()
        self._log.wait_for_end(_LOG_END_S)

    def _start(self, *options: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(  # noqa: S603
            [*configuration.command(self._haproxy), *options],
            env=configuration.environment(self._served.plan),
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal does not reach it
            preexec_fn=die_with_parent,
        )
        lines, errors = cast(IO[bytes], process.stdout), cast(IO[bytes], process.stderr)
        # HAProxy drops log lines while the pipe is full
        with contextlib.suppress(OSError):
            fcntl.fcntl(lines, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._log.follow(lines)
        threading.Thread(target=_forward_alerts, args=(errors,), daemon=True).start()
        return process

    def _command(self, command: str) -> None:
        """Run a command as soon as HAProxy accepts one. If it has ended, `check` says so."""
        deadline = time.monotonic() + _ADMIN_TIMEOUT_S
        while self.is_running() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                admin.run_command(self._folder, command)
                return
            time.sleep(_POLL_S)

    def _serving_pid(self) -> int:
        """Return the process id of a HAProxy that responds on the admin socket; 0 if none does."""
        with contextlib.suppress(OSError, LookupError):
            return int(admin.information(self._folder)["Pid"])
        return 0

    def _fingerprint(self) -> list[tuple[int, ...] | str]:
        """Return what changes if a watched file is written or replaced; a missing file has an empty tuple."""
        found: list[tuple[int, ...] | str] = [self._served.version]
        for path in configuration.watched_files(self._served.plan.settings):
            try:
                status = os.stat(path)  # noqa: PTH116
            except OSError:
                found.append(())
            else:
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return found


def _forward_alerts(stream: IO[bytes]) -> None:
    """Log HAProxy's errors, without its notices and warnings of every start and stop."""
    with stream:
        for line in stream:
            text = line.decode(errors="replace")
            if "[ALERT]" in text:
                log(f"HAProxy: {configuration.first_alert(text)}", "ERROR")
