import os
import signal
import subprocess
import sys

import psutil
import pytest

from tests.support.server import wait_until
from vinegrape_server.host.processes import find_workers, is_running

_SLEEPER = "import sys, time; print('started', flush=True); time.sleep(600)"


def test_a_process_runs_until_it_is_killed():
    with subprocess.Popen([sys.executable, "-c", _SLEEPER]) as process:
        assert is_running(process.pid)
        process.kill()
        # Before wait() the process is a zombie
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
        assert not is_running(process.pid)
    assert not is_running(process.pid)


def test_only_workers_are_found_among_the_children():
    with (
        subprocess.Popen([sys.executable, "-c", _SLEEPER, "/home/ts/model_service_worker.py"]) as worker,
        subprocess.Popen([sys.executable, "-c", _SLEEPER, "/home/ts/metrics/metric_collector.py"]) as collector,
    ):
        try:
            assert [process.pid for process in find_workers(psutil.Process())] == [worker.pid]
        finally:
            worker.kill()
            collector.kill()


_PARENT = f"""
import subprocess, sys, time
from vinegrape_server.host.processes import die_with_parent

child = subprocess.Popen([sys.executable, "-c", {_SLEEPER!r}], preexec_fn=die_with_parent)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="The kernel's PR_SET_PDEATHSIG exists on Linux only")
def test_a_child_ends_when_its_parent_is_killed():
    with subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        try:
            parent.kill()
            wait_until(lambda: not is_running(child))
        finally:
            if is_running(child):
                os.kill(child, signal.SIGKILL)
