"""A process of a running server is killed or hangs."""

import tempfile
from pathlib import Path

import httpx
import pytest

from tests.support.processes import STOP_S, assert_all_ended, descendants, java, workers
from tests.support.repack import with_entry
from tests.support.server import serving, starting, wait_until

pytestmark = pytest.mark.live

STARTS_ONCE = """
from pathlib import Path
from vinegrape_handler.handler import Handler

class StartsOnce(Handler):
    def initialize(self, context):
        Path({folder!r}).mkdir()
        super().initialize(context)
"""


def last_line(log) -> str:
    return log.read_text().splitlines()[-1]


def responds(live, image) -> bool:
    """Send a request, and return whether it succeeds. TorchServe never responds to one that a killed worker held."""
    try:
        return live.post(image, timeout=5).status_code == 200
    except httpx.TimeoutException:
        return False


def test_a_killed_worker_is_replaced_and_its_counts_are_kept(tiny_archive, image, tmp_path):
    with serving(tiny_archive, tmp_path / "log") as live:
        answers = [live.post(image).json() for _ in range(3)]
        first = kill_worker(live)
        wait_until(lambda: {worker.pid for worker in workers(live.process)} - {first})
        wait_until(live.is_ready)
        answers.append(live.post(image).json())
        assert answers == answers[:1] * 4
        assert live.metrics()["vinegrape_requests_total", "", "200", "rest"] == 4
        assert live.metrics()[("vinegrape_workers_ready",)] == 1
        assert live.metrics()[("vinegrape_worker_deaths_total",)] == 1

        second = kill_worker(live)
        wait_until(lambda: responds(live, image))  # sent while no worker runs
        (third,) = workers(live.process)
        assert len({first, second, third.pid}) == 3


def kill_worker(live) -> int:
    """Kill the only worker; return its process id."""
    (worker,) = workers(live.process)
    worker.kill()
    worker.wait(STOP_S)
    return worker.pid


def test_a_killed_java_ends_the_server(tiny_archive, tmp_path):
    with tempfile.TemporaryDirectory() as folder:
        with serving(tiny_archive, tmp_path / "log", environment={"TMPDIR": folder}) as live:
            processes = descendants(live.process)
            java(live.process).kill()
            assert live.process.wait(STOP_S) == 1
            assert_all_ended(processes)
        assert not list(Path(folder).iterdir())
        assert last_line(live.log).startswith("vinegrape: ")
        assert "SIGKILL" in last_line(live.log)
        assert "/vinegrape_server/" not in live.log.read_text()  # no traceback


def test_the_processes_of_a_killed_server_end_too(tiny_archive, tmp_path):
    """The next server removes the temporary folder, which the killed server cannot do."""
    with tempfile.TemporaryDirectory() as folder:  # servers of other tests must not see it: they would remove it too
        environment = {"TMPDIR": folder}
        with serving(tiny_archive, tmp_path / "log", environment=environment) as live:
            processes = descendants(live.process)
            live.process.kill()
            live.process.wait(STOP_S)
            assert_all_ended(processes)
        (abandoned,) = Path(folder).iterdir()
        with starting(tiny_archive, tmp_path / "next", environment=environment):
            wait_until(lambda: not abandoned.exists())


def test_servers_that_do_not_recover_end_after_startup_timeout_s(tiny_archive, tmp_path):
    """In the first server no worker starts a second time; in the second one TorchServe hangs.

    They run at the same time, because each of them waits for the timeout. TorchServe alone would stop starting workers,
    and then refuse every request.
    """
    archive = with_entry(tiny_archive, tmp_path, STARTS_ONCE.format(folder=str(tmp_path / "started")))
    timeout_s = 15  # enough for the start, and for the 10 s after which the probes report a TorchServe that hangs
    with (
        serving(archive, tmp_path / "without_worker", startup_timeout_s=timeout_s) as without_worker,
        serving(tiny_archive, tmp_path / "hanging", startup_timeout_s=timeout_s) as hanging,
    ):
        kill_worker(without_worker)
        frontend = java(hanging.process)
        frontend.suspend()

        wait_until(lambda: without_worker.operations("/readyz").status_code == 503)
        assert without_worker.operations("/livez").status_code == 200
        assert without_worker.metrics()[("vinegrape_workers_ready",)] == 0
        wait_until(lambda: hanging.operations("/readyz").status_code == 503)
        wait_until(lambda: hanging.operations("/livez").status_code == 503)

        for server, part in ((without_worker, "worker"), (hanging, "TorchServe")):
            assert server.process.wait(timeout_s + STOP_S) == 1
            assert part in last_line(server.log)
            assert f"{timeout_s} s (startup_timeout_s)" in last_line(server.log)
        assert_all_ended([frontend])
