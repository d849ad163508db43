"""The machine: a temporary folder that is full, small or noexec, and two starts at the same time."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from vinegrape_loadtests.chaos.good_clients import GoodClients, Load
from vinegrape_loadtests.chaos.target import WORKER, Target, public_ports
from vinegrape_loadtests.chaos.trial import Skip, Trial

_ONE_LINE_S = 15  # within which a start that cannot work must say why
_FILL_MIB = 60
_CLIENT_TIMEOUT_S = 10
_FOLDER_PREFIX = "chaos-tmpfs-"
_FOLDER = re.compile(rf"\S*/{_FOLDER_PREFIX}\w+")  # its random name has no place in a report


def folder_too_small(trial: Trial) -> None:
    """Start with a temporary folder of 4, 12 or 18 MiB."""
    for mib in (4, 12, 18):
        with _mounted(f"size={mib}m") as folder:
            _start_or_one_line(trial, folder, f"{mib} MiB")


def folder_noexec(trial: Trial) -> None:
    """Start with a temporary folder from which nothing can be executed, as `docker run --tmpfs /tmp` has it."""
    with _mounted("size=200m,noexec") as folder:
        _start_or_one_line(trial, folder, "noexec")


def folder_fills_up(trial: Trial) -> None:
    """Fill the temporary folder of a running server, then kill a worker."""
    with _mounted(f"size={_FILL_MIB}m") as folder, trial.serve(environment=_environment(folder)) as target:
        target.server.wait_until_ready()
        with _good_clients(trial, target) as clients:
            trial.begin()
            with contextlib.suppress(OSError), (folder / "filling").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(1 << 20))
            time.sleep(trial.count(1, 3))
            target.processes(WORKER)[0].kill()
            trial.allow_lost(1)
            time.sleep(trial.count(2, 5))
            code = target.server.process.poll()
            trial.require(code is None, f"`vinegrape serve` ended with code {code}: {target.log_tail(1)!r}")
            trial.note(f"/readyz with a full folder: {target.probe()}")
            (folder / "filling").unlink()
            freed = time.monotonic()
            recovered = trial.wait_until(lambda: target.probe() == "ok", 30)
            trial.require(recovered is not None, "not ready 30 s after the folder had space again")
            clients.wait_for_right_answers(freed, 10)
            trial.recovery_s = recovered
            clients.stop()


def two_starts(trial: Trial) -> None:
    """Start two servers with the same ports at the same instant: one works, the other says why it does not."""
    for _ in range(trial.count(1, 3)):
        ports = public_ports()
        with trial.serve(ports=ports) as first, trial.serve(ports=ports) as second:
            both = (first, second)
            trial.wait_until(lambda: not all(target.is_running() for target in both), _ONE_LINE_S)  # noqa: B023
            ended = [target for target in both if not target.is_running()]
            trial.outcomes[f"{len(ended)} of 2 ended"] += 1
            trial.require(len(ended) == 1, f"{len(ended)} of two starts ended within {_ONE_LINE_S} s")
            for target in ended:
                _require_one_line(trial, target, "the second start")
            for target in both if len(ended) == 1 else ():
                if target.is_running():
                    target.server.wait_until_ready()


def _start_or_one_line(trial: Trial, folder: Path, what: str) -> None:
    """Start a server that must become ready, or end with one line that says why, within some seconds."""
    with trial.serve(environment=_environment(folder)) as target:
        trial.wait_until(lambda: not target.is_running() or target.probe() == "ok", _ONE_LINE_S)
        if target.is_running():
            ready = target.probe() == "ok"
            trial.outcomes[f"{what}: {'ready' if ready else 'silent'}"] += 1
            trial.require(ready, f"{what}: neither ready nor ended after {_ONE_LINE_S} s")
            os.kill(target.pid, signal.SIGTERM)  # with a second signal it does not wait
            os.kill(target.pid, signal.SIGINT)
        else:
            trial.outcomes[f"{what}: ended with one line"] += 1
            _require_one_line(trial, target, what)


def _require_one_line(trial: Trial, target: Target, what: str) -> None:
    code, last, text = target.server.process.poll(), target.log_tail(1), target.log_tail(1000)
    trial.require(code == 1, f"{what}: exit code {code}, not 1")
    trial.require(last.startswith("vinegrape: "), f"{what}: the last line is {last!r}")
    trial.require("Traceback" not in text, f"{what}: a traceback")
    trial.note(f"{what}: {_FOLDER.sub('TMPDIR', last)}")


@contextlib.contextmanager
def _good_clients(trial: Trial, target: Target) -> Iterator[GoodClients]:
    with GoodClients(Load((target.endpoint,), trial.images, trial.rates, _CLIENT_TIMEOUT_S)) as clients:
        trial.clients = clients
        clients.wait_for_right_answers(0, 20)
        yield clients


@contextlib.contextmanager
def _mounted(options: str) -> Iterator[Path]:
    """Mount a folder in memory, and unmount it at the end of the block.

    Raises:
        Skip: this machine does not allow it.
    """
    with tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX) as folder:
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise Skip(f"cannot mount a folder in memory: {done.stderr.strip()}")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=False)  # noqa: S603, S607


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder)}
