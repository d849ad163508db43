import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conftest import ROOT, program
from vinegrape_loadtests.bench import closed_loop
from vinegrape_loadtests.bench.command import bench
from vinegrape_loadtests.bench.results import FULL, Results


@pytest.fixture(scope="module")
def folder(archive, tmp_path_factory) -> Path:
    """What the smallest run with every server writes."""
    program("wrk", "wrk")
    program("h2load", "nghttp2-client")
    made = tmp_path_factory.mktemp("bench")
    command = [str(Path(sys.executable).with_name("vinegrape")), "bench", str(made), "--archive", str(archive)]
    options = ["--rounds", "1", "--seconds", "1", "--warm-up", "0", "--starts", "1", "--workload", "png"]
    result = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    (made / "said").write_text(result.stdout)
    return made


@pytest.fixture(scope="module")
def results(folder) -> Results:
    return Results.read(folder / "bench.json")


def test_everything_is_measured(results):
    asked = {(m.target, m.transport, m.mode, m.load) for m in results.measurements}
    assert {("ceiling", "process", "closed", 1), ("ceiling", "process", "closed", 2)} & asked
    assert {("vinegrape", each, "closed", load) for each in ("rest", "grpc") for load in (1, 4, *FULL)} <= asked
    assert {(peer, "rest", "closed", 16) for peer in ("same functions", "ordinary", "stock")} <= asked
    assert {("vinegrape", "rest", "even", part) for part in (0.5, 0.7, 0.9)} <= asked
    assert set(results.open_loop_ms) == {"even 0.5", "even 0.7", "even 0.9", "poisson 0.7"}
    assert len(results.start_s) == 1


def test_nothing_failed_and_the_processors_time_is_known(results):
    for m in results.select(target="vinegrape"):
        assert m.failed == 0, m
        assert m.requests, m
        assert set(m.cpu_ms) == {"Java", "worker", "supervisor"}, m
        assert 0 < m.handler_cpu_ms < sum(m.cpu_ms.values()), m


def test_it_is_printed_and_drawn(folder):
    said = (folder / "said").read_text()
    assert said.startswith("| | measured | to reach | |")
    assert (folder / "bench.md").read_text() == said
    assert (folder / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_load_generator_is_named_before_anything_starts(monkeypatch):
    monkeypatch.setattr(closed_loop.shutil, "which", lambda name: None if name == "h2load" else name)
    result = CliRunner().invoke(bench, ["/tmp/none"])
    assert result.exit_code == 1
    assert "apt-get install nghttp2-client" in result.output
