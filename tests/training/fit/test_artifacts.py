"""What a run of Weights & Biases holds, read from the files that its offline mode writes."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from tests.support.killed_training import run_killed
from tests.support.offline_wandb import StoredRun, stored_run
from tests.support.small_config import SMALL
from vinegrape_cli.main import vinegrape
from vinegrape_training.data.dataset import scan
from vinegrape_training.experiments.cross_validation import CrossValidationPlan, cross_validate
from vinegrape_training.fit.config import compose_config
from vinegrape_training.fit.train import train

pytestmark = [pytest.mark.trains, pytest.mark.xdist_group("trained")]

WANDB = ("logger=wandb", "logger.offline=true", "trainer.max_epochs=2", "data.batch_size=8")


@pytest.fixture(autouse=True)
def wandb_writes_to(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep W&B offline, quiet and out of the home folder."""
    home = tmp_path_factory.mktemp("wandb_home")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")


def assert_digests(run: StoredRun, folder: Path) -> None:
    """Assert that a run knows the images by their digests, and holds none of them."""
    artifact, dataset = run.artifacts["dataset"], scan(folder)
    assert artifact.name == folder.name
    assert artifact.metadata["data_digest"] == run.config["data_digest"] == dataset.digest()
    assert list(artifact.files) == ["sha256sums.txt"]
    lines = artifact.files["sha256sums.txt"].decode().splitlines()
    first = dataset.paths[0]
    assert lines[0] == f"{hashlib.sha256((folder / first).read_bytes()).hexdigest()}  {first}"
    assert len(lines) == len(dataset.paths)


def assert_pictures(run: StoredRun, kind: str, names: set[str]) -> None:
    """Assert that an artifact has these pictures, and that the run shows them."""
    pictures = {name for name in run.artifacts[kind].files if name.endswith(".png")}
    assert pictures == names
    for name in names:
        Image.open(io.BytesIO(run.artifacts[kind].files[name])).verify()
    shown = {name.partition("/")[0] for row in run.history for name in row}
    assert {Path(name).stem for name in names} <= shown


def test_a_training_logs_its_settings_digests_and_plots(drawn: Path, tmp_path: Path) -> None:
    cfg = compose_config([*SMALL, *WANDB, f"data.dir={drawn}", f"run_dir={tmp_path}"])
    result = train(cfg)
    run = stored_run(tmp_path)
    assert (run.project, run.job_type) == ("vinegrape", "train")
    assert run.config["optimizer"] == dict(cfg.optimizer)
    assert run.summary["test_accuracy"] == result.run.metrics["test_accuracy"]
    assert [row["validation/loss"] for row in run.history if "validation/loss" in row] == pytest.approx(
        [epoch["validation/loss"] for epoch in result.history]
    )
    assert_digests(run, drawn)
    assert_pictures(run, "run", {"curves.png", "confusion.png"})
    assert json.loads(run.artifacts["run"].files["run.json"])["data_digest"] == scan(drawn).digest()


def test_a_run_that_was_killed_continues_in_the_same_run_of_wandb(drawn: Path, tmp_path: Path) -> None:
    settings = [*SMALL, *WANDB, f"data.dir={drawn}", f"run_dir={tmp_path}"]
    run_killed("step 4", "train", *settings)
    train(compose_config(settings))
    first, second = (path.name.rpartition("-")[2] for path in tmp_path.glob("wandb/offline-run-*"))
    assert first == second


def test_an_evaluation_logs_its_figures_digests_and_plots(drawn: Path, tmp_path: Path) -> None:
    cfg = compose_config([*SMALL, *WANDB, "trainer.max_epochs=1", f"data.dir={drawn}"])
    report = cross_validate(cfg, tmp_path / "small", CrossValidationPlan((1,), 2), int8=False)
    run = stored_run(tmp_path / "small")
    assert (run.project, run.job_type) == ("vinegrape", "evaluation")
    assert run.config["seeds"] == [1]
    assert run.summary["test_accuracy"] == report.accuracy
    assert_digests(run, drawn)
    assert run.artifacts["evaluation"].name == "evaluation-small"
    assert_pictures(run, "evaluation", {"confusion.png", "reliability.png", "risk_coverage.png"})
    assert len(list((tmp_path / "small").glob("seed-1/fold-*/wandb/offline-run-*"))) == 2


def test_an_archive_is_logged_as_a_model(export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "store" / "vinegrape.mar"
    result = CliRunner().invoke(
        vinegrape, ["archive", str(export), str(target), "--weights", "onnx_int8", "--wandb"], catch_exceptions=False
    )
    run = stored_run(tmp_path)
    model = run.artifacts["model"]
    assert (run.project, run.job_type, model.name) == ("vinegrape", "archive", "vinegrape")
    assert model.metadata["version"] in result.stdout
    assert model.files == {path.name: path.read_bytes() for path in target.parent.iterdir()}
    assert run.summary["test_accuracy"] > 0
