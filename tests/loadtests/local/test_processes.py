import os
import subprocess
import sys

import pytest

from tests.conftest import program
from vinegrape_loadtests.local.processes import cpu_seconds, pss_mib, wait_until_idle
from vinegrape_loadtests.local.server import running, serving


def test_an_ordinary_process_counts_as_supervisor():
    with running([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        assert {kind for kind, _ in pss_mib(process.pid)} == {"supervisor"}
        wait_until_idle(process.pid)
    assert cpu_seconds(os.getpid())["supervisor"] > 0


@pytest.mark.live
@pytest.mark.xdist_group("timing")
def test_a_servers_processes_are_supervisor_java_workers_and_gateway(tiny_archive):
    with serving("--archive", str(tiny_archive), "--workers", "2", stdout=subprocess.DEVNULL) as server:
        kinds = [kind for kind, mib in pss_mib(server.process.pid) if mib > 1]
        assert cpu_seconds(server.process.pid).keys() == {"supervisor", "Java", "worker", "gateway"}
    assert sorted(kinds) == ["Java", "gateway", "supervisor", "worker", "worker"]


@pytest.mark.live
@pytest.mark.tools
@pytest.mark.xdist_group("timing")
def test_the_edge_is_haproxy(tiny_archive):
    program("haproxy", "haproxy")
    options = ("--edge", "--archive", str(tiny_archive), "--workers", "1")
    with serving(*options, stdout=subprocess.DEVNULL) as server:
        assert cpu_seconds(server.process.pid).keys() == {"supervisor", "Java", "worker", "gateway", "edge"}
