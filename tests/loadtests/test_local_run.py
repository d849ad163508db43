import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.support.locust_run import PATIENT
from vinegrape_loadtests import local_run


def test_both_loads_run_against_a_server_of_their_own(tmp_path):
    reports = ("--csv", str(tmp_path / "report"), "--html", str(tmp_path / "report.html"))
    command = [sys.executable, "-m", "vinegrape_loadtests.local_run", "--run-time", "1", *PATIENT, *reports]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.count("Passed: every threshold held.") == 2
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (-9, 0), (0, 2)])
def test_one_load_that_fails_is_enough(monkeypatch, codes):
    """Killed counts too."""
    left = iter(codes)
    scripts = {0: "pass", 1: "exit(1)", 2: "exit(2)", -9: "import os; os.kill(os.getpid(), 9)"}
    real = subprocess.run
    monkeypatch.setattr(local_run.subprocess, "run", lambda _: real([sys.executable, "-c", scripts[next(left)]]))
    assert local_run.run_all(()) == 1


def test_either_load_can_fail():
    command = [sys.executable, "-m", "vinegrape_loadtests.local_run", "--host", "http://127.0.0.1:9", "--p95-ms", "0"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr.count("p95_ms is 0.0; it must be more than 0.") == 2
