"""The process of TorchServe's Java frontend, whose children are the workers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from vinegrape_server.errors import ServeError
from vinegrape_server.host.processes import die_with_parent
from vinegrape_server.torchserve.log import TorchServeLog


class TorchServeProcess:
    """A TorchServe that starts at construction. As a context manager it kills TorchServe and its workers at the end.

    Args:
        command: the command that starts TorchServe.
        environment: all its environment variables.
        folder: its working directory.

    Attributes:
        pid: process id.
        log: its standard output and standard error.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self._process = subprocess.Popen(  # noqa: S603
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # A new process group: Ctrl-C in the terminal does not reach it, and one signal ends the whole group
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        self.pid = self._process.pid
        self.log = TorchServeLog(self._process.stdout or ())

    def __enter__(self) -> TorchServeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self.log.wait_for_end()

    def is_running(self) -> bool:
        """Return whether TorchServe's Java process runs."""
        return self._process.poll() is None

    def check(self) -> None:
        """Check that TorchServe runs and that, before `log.release()`, no worker has logged a failed start.

        Later, a worker's failure is not an error: the other workers continue while TorchServe restarts it.

        Raises:
            ServeError: TorchServe has ended, or a worker cannot start.
        """
        code = self._process.poll()
        if code is not None:
            self.log.wait_for_end()
        if self.log.failure:
            raise ServeError(f"A worker cannot start: {self.log.failure}")
        if code is not None:
            self.log.release()
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise ServeError(f"TorchServe {how}. See the log above.")
