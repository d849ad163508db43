"""Load another version of the model beside the one that answers, let it answer, and unload the old one."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vinegrape_handler.contract import BATCH_STARTED
from vinegrape_handler.errors import SettingError
from vinegrape_server.archive_info import ArchiveInfo
from vinegrape_server.errors import ServeError
from vinegrape_server.host.instance import free_bytes
from vinegrape_server.host.log import log
from vinegrape_server.operations.worker_metrics import WorkerMetrics
from vinegrape_server.plan import Plan, Served, make_plan
from vinegrape_server.torchserve import configuration
from vinegrape_server.torchserve.client import LoadedVersion, TorchServeClient
from vinegrape_server.torchserve.log import TorchServeLog

_POLL_S = 0.1
# A request is seen neither in the queue nor in a worker while TorchServe moves it from one to the other
_QUIET_S = 1.0
_FOLLOW_TIMEOUT_S = 15
_NO_REPORT = (OSError, ValueError, LookupError, TypeError)

Report = Callable[[str], None]
"""Receives what has been done, as a sentence."""


@dataclass(frozen=True)
class Tools:
    """What a swap works with.

    Attributes:
        client: sends requests to TorchServe.
        worker_metrics: the workers' metrics.
        log: TorchServe's log.
        token: the token of self-checks.
        followed: returns whether every other process knows the version that answers.
    """

    client: TorchServeClient
    worker_metrics: WorkerMetrics
    log: TorchServeLog
    token: str
    followed: Callable[[], bool]


class Models:
    """The versions of the model in one server.

    Args:
        served: what is served; a swap replaces it.
        store: TorchServe's store of archives.
        tools: what a swap works with.
    """

    def __init__(self, served: Served, store: Path, tools: Tools) -> None:
        self._served = served
        self._store = store
        self._tools = tools
        self._lock = threading.Lock()
        self._count = 0
        self._copy = store / configuration.archive_name(served.plan)  # of the archive whose model answers
        self._previous: ArchiveInfo | None = None  # its path is that of a copy in the store

    def versions(self) -> list[dict[str, str]]:
        """Return the version that answers, and the one that `roll_back` would load."""
        found = [(self._served.plan.archive, "serving")]
        if self._previous:
            found.append((self._previous, "previous"))
        return [
            {"name": archive.metadata.name, "version": archive.metadata.version, "state": state}
            for archive, state in found
        ]

    def swap(self, path: Path, report: Report) -> None:
        """Let the model of an archive answer instead of the one that answers now. No request fails.

        Args:
            path: of the archive.
            report: receives each step.

        Raises:
            VinegrapeError: the archive cannot be served, or another swap is running; the old version goes on.
        """
        if not self._lock.acquire(blocking=False):
            raise ServeError("Another swap is running. Wait for its end: vinegrape models list")
        try:
            self._swap(ArchiveInfo.read(path), report)
        finally:
            self._lock.release()

    def roll_back(self, report: Report) -> None:
        """Let the previous version answer again; see `swap`.

        Raises:
            VinegrapeError: there is no previous version, or it cannot be served.
        """
        if self._previous is None:
            raise ServeError("There is no previous version: this server has not swapped its model.")
        self.swap(self._previous.path, report)

    def _swap(self, archive: ArchiveInfo, report: Report) -> None:
        old, plan = self._served.plan, self._plan(archive)
        version, old_version = archive.metadata.version, old.archive.metadata.version
        report(f"Loading version {version} beside version {old_version}.")
        with self._copied(archive) as copy, self._unloaded_on_failure(version):
            self._tools.log.later_failure = ""
            self._tools.client.register(copy.name, plan)
            self._wait_for_self_checks(plan)
            report(f"Version {version} is loaded. All its workers have passed a self-check.")
            self._tools.client.set_default(version)
        self._served.plan = plan
        if not self._wait(self._tools.followed, _FOLLOW_TIMEOUT_S):
            log(f"The edge or the gateway still names version {old_version} to clients.", "ERROR")
        log(f"Version {version} answers.", "INFO")
        report(f"Version {version} answers.")
        lost = self._drain(old_version, old.settings.drain_timeout_s, old.settings.workers)
        self._unload(old_version)
        report(f"Version {old_version} is unloaded." + (" It still had requests." if lost else ""))
        obsolete, self._previous = self._previous, dataclasses.replace(old.archive, path=self._copy)
        self._copy = copy
        if obsolete and obsolete.path != copy:
            obsolete.path.unlink(missing_ok=True)

    def _plan(self, archive: ArchiveInfo) -> Plan:
        """Return the plan of a new archive: with the settings of the workers that run.

        Raises:
            SettingError: the archive does not fit this server.
        """
        served = self._served.plan
        new, old = archive.metadata, served.archive.metadata
        if new.name != old.name:
            raise SettingError(
                f"{archive.path} is a model named {new.name!r}; this server serves {old.name!r}, and its paths contain "
                "the name. Start another server for it."
            )
        if new.version == old.version:
            raise SettingError(f"Version {new.version} is the one that this server serves.")
        plan = make_plan(served.settings, archive, served.gpus, torch_installed=True)
        needed, free = archive.packed_bytes + archive.unpacked_bytes, free_bytes(self._store)
        if free < needed:
            raise SettingError(
                f"The temporary folder has {free / 1e6:.1f} MB free; the archive needs {needed / 1e6:.1f} MB."
            )
        return plan

    @contextlib.contextmanager
    def _copied(self, archive: ArchiveInfo) -> Iterator[Path]:
        """Copy an archive to the store. If the block fails, the copy is removed."""
        if archive.path.parent == self._store:
            yield archive.path
            return
        self._count += 1
        copy = self._store / f"{archive.metadata.name}-{self._count}.mar"
        try:
            shutil.copyfile(archive.path, copy)
            yield copy
        except BaseException:
            copy.unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def _unloaded_on_failure(self, version: str) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self._unload(version)
            raise

    def _wait_for_self_checks(self, plan: Plan) -> None:
        """Wait until every worker of a version that is loaded has passed a self-check. This also warms them up.

        Raises:
            ServeError: a worker cannot start, or takes longer than `startup_timeout_s`.
        """
        settings, version = plan.settings, plan.archive.metadata.version
        passed: set[int] = set()

        def all_passed() -> bool:
            if reason := self._tools.log.later_failure:
                raise ServeError(f"A worker of version {version} cannot start: {reason}")
            passed.add(self._tools.client.self_check_of(version, self._tools.token) or 0)
            return len(passed - {0}) >= settings.workers

        if not self._wait(all_passed, settings.startup_timeout_s):
            raise ServeError(
                f"{len(passed - {0})} of {settings.workers} workers of version {version} have passed a self-check "
                f"within {settings.startup_timeout_s} s (startup_timeout_s). See the log of the server."
            )

    def _drain(self, version: str, limit_s: float, workers: int) -> bool:
        """Wait until a version that gets no new requests has none. Return whether it still has some after the limit."""
        quiet_since = time.monotonic()

        def is_quiet() -> bool:
            nonlocal quiet_since
            # Readiness takes a worker without a request for one that hangs
            for _ in range(workers):
                self._tools.client.self_check_of(version, self._tools.token)
            if self._is_busy(version):
                quiet_since = time.monotonic()
            return time.monotonic() - quiet_since > _QUIET_S

        return not self._wait(is_quiet, limit_s)

    def _is_busy(self, version: str) -> bool:
        try:
            loaded = self._tools.client.versions().get(version, LoadedVersion(0, frozenset()))
            gauges = self._tools.worker_metrics.gauges_by_process()
        except _NO_REPORT:
            return True
        return loaded.queued > 0 or any(gauges.get(pid, {}).get(BATCH_STARTED.name) for pid in loaded.workers)

    def _unload(self, version: str) -> None:
        """End the workers of a version, if it is loaded."""
        try:
            loaded = self._tools.client.versions().get(version)
            if loaded:
                self._tools.worker_metrics.expect_end(loaded.workers)
                self._tools.client.unregister(version)
        except (ServeError, *_NO_REPORT) as error:
            log(f"Version {version} could not be unloaded: {error}", "ERROR")

    def _wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True
