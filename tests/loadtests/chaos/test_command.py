"""`vinegrape chaos`: its options, and the short form on a real server."""

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.conftest import ROOT, program
from vinegrape_loadtests.chaos.command import chaos, choose
from vinegrape_loadtests.chaos.report import markdown, terminal_line
from vinegrape_loadtests.chaos.row import FAILED, PASSED, SKIPPED, Report, Result
from vinegrape_loadtests.chaos.rows import ROWS


def run_chaos(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("vinegrape")), "chaos", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.live
@pytest.mark.tools
@pytest.mark.xdist_group("timing")
def test_the_server_survives_the_short_form(tiny_archive, tmp_path):
    program("haproxy", "haproxy")
    process = run_chaos("--edge", "--archive", str(tiny_archive), "--write", str(tmp_path / "report.json"))
    assert process.returncode == 0, process.stdout + process.stderr
    report = Report.read(tmp_path / "report.json")
    assert [result.name for result in report.results] == [row.name for row in ROWS if row.short]
    assert {result.verdict for result in report.results} == {PASSED}


@pytest.mark.live
@pytest.mark.xdist_group("timing")
def test_without_the_edge_what_only_the_edge_can_do_is_skipped(tiny_archive):
    process = run_chaos("--no-edge", "--archive", str(tiny_archive), "workers-killed", "framing")
    assert process.returncode == 0, process.stdout + process.stderr
    assert "1 passed, 0 failed, 1 skipped" in process.stdout


def test_rows_have_different_names_and_say_what_is_claimed():
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert {row.attack for row in ROWS} >= set(range(1, 17))
    assert all(row.fault and row.claim.endswith(".") for row in ROWS)


def test_rows_are_chosen_by_name_or_by_form():
    assert [row.name for row in choose(ROWS, ("soak", "counts"), False)] == ["counts", "soak"]
    short, long = choose(ROWS, (), False), choose(ROWS, (), True)
    assert set(short) < set(long)
    assert "soak" not in {row.name for row in long}
    with pytest.raises(click.ClickException, match="No such fault: flood"):
        choose(ROWS, ("flood",), False)


def test_the_list_names_every_fault():
    output = CliRunner().invoke(chaos, ["--list"], catch_exceptions=False).output
    assert [line.split()[0] for line in output.splitlines()] == [row.name for row in ROWS]


RESULTS = [
    Result("a-fault", 3, "a | b", "It holds.", PASSED, right=7, p99_ms=12.3, outcomes={"400": 2}),
    Result("another", 0, "c", "It holds.", FAILED, ["2 lost"], right=7, lost=2, not_ready_s=1.25, recovery_s=0.5),
    Result("third", 0, "d", "It holds.", SKIPPED, ["needs the edge"]),
]


def test_a_report_is_read_as_it_was_written_and_a_failed_row_decides(tmp_path):
    report = Report("2 cores", True, "long", 80.0, {"rest": 20.0}, RESULTS)
    report.write(tmp_path / "report.json")
    assert Report.read(tmp_path / "report.json") == report
    assert not report.passed
    assert Report("2 cores", True, "long", 80.0, {}, [RESULTS[0], RESULTS[2]]).passed


def test_the_table_has_a_command_and_a_verdict_per_row():
    table = markdown(Report("2 cores", True, "long", 80.0, {"rest": 20.0}, RESULTS)).splitlines()
    assert "| 3 | a \\| b | It holds. | 2 x 400 | 7 / 0 / 0 / 0 | 12 |  |  | passed |" in table[-3]
    assert table[-3].endswith("`vinegrape chaos a-fault --edge --long` |")
    assert "| **failed**: 2 lost |" in table[-2]
    assert "| skipped: needs the edge |" in table[-1]
    assert terminal_line(RESULTS[1]).splitlines()[1].strip() == "2 lost"
