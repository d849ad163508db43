"""`vinegrape serve` as process 1 of a process namespace, as in a container."""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import program
from tests.support.processes import running
from tests.support.server import Live, clean_environment, free_ports, serve_command, wait_until


@contextlib.contextmanager
def starting_first_process(archive: Path, log: Path) -> Iterator[tuple[Live, psutil.Process]]:
    """Start a server that has process id 1 in its namespace.

    The kernel drops every signal that process 1 does not handle.

    Yields:
        The server, whose `process` is `unshare`; and process 1 itself.
    """
    unshare, ports = program("unshare", "util-linux"), free_ports()
    if os.geteuid() != 0:
        pytest.skip("A process namespace needs root; run the tests as root")
    arguments = [
        unshare,
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        *serve_command(archive, workers=1, **ports),
    ]
    with (
        log.open("w") as file,
        running(arguments, stdout=file, stderr=subprocess.STDOUT, env=clean_environment()) as process,
    ):
        try:
            wait_until(lambda: psutil.Process(process.pid).children())
            (first,) = psutil.Process(process.pid).children()
            assert re.search(r"^NSpid:.*\t1$", Path(f"/proc/{first.pid}/status").read_text(), re.MULTILINE)
            live = Live(process, ports, log)
            with live.client:
                yield live, first
        finally:
            process.kill()  # unshare ignores SIGINT and SIGTERM; because of --kill-child, the server ends with it


def handles(process: psutil.Process, number: int) -> bool:
    """Whether a process has a handler for a signal."""
    caught = re.search(r"^SigCgt:\t(\w+)$", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
    assert caught is not None
    return bool(int(caught[1], 16) >> (number - 1) & 1)
