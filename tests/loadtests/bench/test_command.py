import pytest
from click.testing import CliRunner

from tests.loadtests.bench.sample_results import measurement, results
from vinegrape_loadtests.bench import bench as bench_module
from vinegrape_loadtests.bench import closed_loop
from vinegrape_loadtests.bench.command import bench
from vinegrape_loadtests.bench.results import Results


@pytest.mark.parametrize("subcommand", [[], ["serving"]])
def test_serving_is_the_default_and_writes_its_three_files(monkeypatch, tmp_path, subcommand):
    measured = results(measurement(0, "vinegrape", 90), measurement(0, "ceiling", 100))
    runs = []
    monkeypatch.setattr(bench_module, "run_benchmark", lambda options: runs.append(options) or measured)
    result = CliRunner().invoke(bench, [*subcommand, str(tmp_path), "--rounds", "2", "--no-peers"])
    assert result.exit_code == 0, result.output
    assert [(options.rounds, options.peers, options.seconds) for options in runs] == [(2, False, 6)]
    assert result.stdout.startswith("# Benchmark of serving\n\n| figure | measured | target | reached |\n")
    assert (tmp_path / "bench.md").read_text() == result.stdout
    assert Results.read(tmp_path / "bench.json") == measured
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("subcommand", ["serving", "memory", "training", "int8"])
def test_each_subcommand_has_a_help_page(subcommand):
    listed = CliRunner().invoke(bench, ["--help"])
    assert f"\n  {subcommand} " in listed.output
    shown = CliRunner().invoke(bench, [subcommand, "--help"])
    assert shown.exit_code == 0
    assert f"Usage: bench {subcommand} " in shown.output
    assert "\b" not in shown.output
    assert "vinegrape bench " in shown.output  # an example


def test_a_missing_load_generator_is_reported_before_anything_starts(monkeypatch, tmp_path):
    monkeypatch.setattr(closed_loop.shutil, "which", lambda name: None if name == "h2load" else name)
    result = CliRunner().invoke(bench, [str(tmp_path)])
    assert result.exit_code == 1
    assert "apt-get install nghttp2-client" in result.output


def test_a_missing_package_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr("vinegrape_loadtests.packages.find_spec", lambda name: None if name == "uvicorn" else name)
    result = CliRunner().invoke(bench, [str(tmp_path)])
    assert result.exit_code == 1
    assert "bench serving needs uvicorn, which is not installed here." in result.output
