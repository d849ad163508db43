import subprocess
import sys

from tests.conftest import ROOT


def test_the_overhead_benchmark_prints_its_three_figures(archive):
    small = ["--starts", "1", "--pairs", "1", "--warm-up", "0"]
    command = [sys.executable, "-m", "loadtests.overhead", "--archive", str(archive), *small]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split(":")[0].split(" ")[0] for line in lines] == ["served", "in", "from"]
