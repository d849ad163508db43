"""A process of a running server is killed or hangs."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import program
from tests.support.processes import STOP_S, assert_all_ended, descendants, java, workers
from tests.support.repack import with_entry
from tests.support.server import serving, starting, wait_until
from vinegrape_server.host.instance import free_bytes

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


def test_a_temporary_folder_that_fills_up_keeps_only_new_workers_from_starting(tiny_archive, image, tmp_path):
    """The folder is a file system of its own, which only the server's processes see."""
    unshare = program("unshare", "util-linux")
    if os.geteuid() != 0:
        pytest.skip("Mounting a file system needs root; run the tests as root")
    mount = 'mount -t tmpfs -o size=40m none "$TMPDIR" && exec "$@"'
    prefix = [unshare, "--mount", "sh", "-c", mount, "sh"]
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(tiny_archive, tmp_path / "log", workers=2, prefix=prefix, environment={"TMPDIR": folder}) as live,
    ):
        inside = Path(f"/proc/{live.process.pid}/root{folder}")
        with filled(inside):
            assert live.post(image).status_code == 200
            workers(live.process)[0].kill()
            wait_until(lambda: "1 of 2 workers" in live.operations("/readyz").text)
            assert live.post(image).status_code == 200
            assert live.metrics()[("vinegrape_worker_deaths_total",)] == 1
            (line,) = [line for line in live.log.read_text().splitlines() if "is full" in line]
            assert line.startswith(f"vinegrape: The temporary folder {folder}")
        wait_until(live.is_ready)


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Keep a file system full, also when other files are removed; free it at the end."""
    file, ended = folder / "filler", threading.Event()

    def fill() -> None:
        while not ended.wait(0.005):
            with contextlib.suppress(OSError), file.open("ab", buffering=0) as filler:
                while True:
                    filler.write(bytes(4096))

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        wait_until(lambda: free_bytes(folder) == 0)
        yield
    finally:
        ended.set()
        thread.join()
        file.unlink()


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
