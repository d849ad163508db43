import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conftest import ROOT
from tests.support.locust_run import PATIENT
from vinegrape_loadtests import local_run, packages
from vinegrape_loadtests.local_run import loadtest, run_all


def vinegrape_loadtest(*options: str, **environment: str) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).with_name("vinegrape")), "loadtest", *options]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=200
    )


@pytest.mark.live
@pytest.mark.xdist_group("timing")
def test_both_loads_run_against_a_server_that_it_starts(tiny_archive, tmp_path):
    reports = ("--csv", str(tmp_path / "report"), "--html", str(tmp_path / "report.html"))
    settings = {"VINEGRAPE_ARCHIVE": str(tiny_archive), "VINEGRAPE_WORKERS": "1"}
    process = vinegrape_loadtest("--run-time", "1", *PATIENT, *reports, **settings)
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.count("Passed: all thresholds were met.") == 2
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (-9, 0), (0, 2), (0, 0)])
def test_the_exit_code_is_1_if_either_load_fails_or_is_killed(monkeypatch, codes):
    remaining = iter(codes)
    monkeypatch.setattr(
        local_run.subprocess, "run", lambda command: subprocess.CompletedProcess(command, next(remaining))
    )
    assert run_all(()) == int(any(codes))


def test_both_loads_get_the_options(monkeypatch):
    commands = []

    def record(command):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(local_run.subprocess, "run", record)
    result = CliRunner().invoke(loadtest, ["--host", "http://127.0.0.1:9", "--p95-ms", "300"])
    assert result.exit_code == 0, result.output
    assert [command[-4:] for command in commands] == [["--host", "http://127.0.0.1:9", "--p95-ms", "300"]] * 2
    assert ["--arrival-rate" in command for command in commands] == [False, True]


@pytest.mark.nightly
@pytest.mark.live
@pytest.mark.xdist_group("timing")
def test_an_invalid_setting_fails_both_loads():
    process = vinegrape_loadtest("--host", "http://127.0.0.1:9", "--p95-ms", "0")
    assert process.returncode == 1
    assert process.stderr.count("p95_ms is 0.0; it must be more than 0.") == 2


def test_a_missing_package_is_reported_before_a_server_starts(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    result = CliRunner().invoke(loadtest, [])
    assert result.exit_code == 1
    assert result.output == (
        "Error: loadtest needs locust, which is not installed here. "
        "Run: pip install -c constraints.txt -e '.[loadtest]'\n"
    )
