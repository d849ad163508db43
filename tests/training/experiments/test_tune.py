"""The search: orchestration with a stand-in for `train`, and trials that are really trained."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from click.testing import CliRunner
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution

from tests.support.small_config import SMALL
from vinegrape_cli.main import vinegrape
from vinegrape_handler.errors import SettingError
from vinegrape_training.data.dataset import Split, scan, split
from vinegrape_training.experiments.search_space import SWEEP_FILE, load_space
from vinegrape_training.experiments.tune import search
from vinegrape_training.fit.config import compose_config
from vinegrape_training.fit.run import Run

pytestmark = pytest.mark.usefixtures("plots_are_not_rendered")

# small_cnn has no stages to freeze; the decay of the average is searched
NETWORK = tuple(override for override in SMALL if not override.startswith("trainer.average_decay"))
SETTINGS = (*NETWORK, "trainer.max_epochs=2", "data.batch_size=8", "model.frozen_stages=0")


class TrialTraining:
    """Stands in for `train` in a search: returns the given validation losses, one list of epochs per trial."""

    def __init__(self, *losses: Sequence[float]) -> None:
        self.losses = list(losses)
        self.calls: list[tuple[DictConfig, Split]] = []

    def __call__(self, cfg: DictConfig, parts: Split) -> SimpleNamespace:
        self.calls.append((cfg, parts))
        return SimpleNamespace(history=[{"validation/loss": loss} for loss in self.losses.pop(0)])


def study(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="vinegrape", storage=f"sqlite:///{folder / 'study.db'}")


@pytest.fixture(scope="module")
def overrides(images: Path) -> list[str]:
    return [f"data.dir={images}", *SETTINGS]


@pytest.fixture(scope="module")
def finished(overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search with two trials, with the losses 0.5 and 0.3."""
    folder = tmp_path_factory.mktemp("finished") / "tune"
    search(overrides, folder, 2, train_trial=TrialTraining([0.5], [0.3]))
    return folder


@pytest.fixture
def searched(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished search, which a test may change."""
    return shutil.copytree(finished, tmp_path / "tune")


def test_trials_are_trained_with_parameters_from_the_space(overrides: list[str], tmp_path: Path) -> None:
    training = TrialTraining([0.5], [0.3])
    search(overrides, tmp_path / "tune", 2, train_trial=training)
    for trial, (cfg, _) in zip(study(tmp_path / "tune").trials, training.calls, strict=True):
        assert set(trial.params) == set(load_space()) - {"model.frozen_stages"}
        assert cfg.optimizer.backbone_lr == pytest.approx(trial.params["optimizer.backbone_lr"])
        assert 0.0001 <= cfg.optimizer.backbone_lr <= 0.003
        assert cfg.trainer.average_decay == trial.params["trainer.average_decay"]
        assert cfg.run_dir == str(tmp_path / "tune" / f"trial-{trial.number:03}")


def test_test_images_are_neither_trained_nor_measured(overrides: list[str], images: Path, tmp_path: Path) -> None:
    training = TrialTraining([0.5])
    search(overrides, tmp_path / "tune", 1, train_trial=training)
    ((_, parts),) = training.calls
    expected = split(scan(images), 0, 0.15, 0.2)
    assert (parts.train, parts.validation, parts.test) == (expected.train, expected.validation, ())


def test_the_value_of_a_trial_is_its_lowest_validation_loss(overrides: list[str], tmp_path: Path) -> None:
    result = search(overrides, tmp_path / "tune", 2, train_trial=TrialTraining([0.9, 0.4, 0.6], [0.5]))
    assert [trial.value for trial in study(tmp_path / "tune").trials] == [0.4, 0.5]
    assert (result.value, result.trials) == (0.4, 2)
    best = study(tmp_path / "tune").trials[0].params
    assert result.overrides == tuple(f"{name}={value}" for name, value in best.items())


def test_a_search_resumes_and_adds_the_missing_trials(searched: Path, overrides: list[str]) -> None:
    interrupted = study(searched).ask()  # like a trial of a process that was killed
    result = search(overrides, searched, 3, train_trial=TrialTraining([0.4]))
    trials = study(searched).trials
    assert [trial.value for trial in trials if trial.number != interrupted.number] == [0.5, 0.3, 0.4]
    assert trials[interrupted.number].state.name == "FAIL"
    assert (result.value, result.trials) == (0.3, 3)
    assert len({trial.params["optimizer.head_lr"] for trial in trials if trial.params}) == 3
    assert search(overrides, searched, 2, train_trial=TrialTraining()) == result


def test_the_plot_is_written(finished: Path) -> None:
    """A smoke test; test_plots.py looks at what the plot shows."""
    assert (finished / "search.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.mixup=0.2", "optimizer.mixup.*0.0.*0.2"),
        ("data.validation_fraction=0.3", r"fractions.*\[0.15, 0.2\].*\[0.3, 0.2\]"),
        ("augmentation.hue=0.1", r"within.*\[\].*\['augmentation.hue=0.1'\]"),
    ],
)
def test_another_configuration_is_refused(override: str, message: str, searched: Path, overrides: list[str]) -> None:
    with pytest.raises(SettingError, match=rf"holds another search \({message}.*Give another folder"):
        search([*overrides, override], searched, 9, train_trial=TrialTraining())


@pytest.mark.parametrize("error", [SettingError("brightness is 2"), KeyboardInterrupt()])
def test_a_trial_that_fails_ends_the_search(error: BaseException, overrides: list[str], tmp_path: Path) -> None:
    def fails(cfg: DictConfig, parts: Split) -> None:
        raise error

    with pytest.raises(type(error)):
        search(overrides, tmp_path / "tune", 2, train_trial=fails)
    assert [trial.state.name for trial in study(tmp_path / "tune").trials] == ["FAIL"]


def test_overrides_that_set_all_parameters_are_refused(overrides: list[str], tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="The overrides set all parameters of the search"):
        search([*overrides, *(f"{name}=1" for name in load_space())], tmp_path, 1, train_trial=TrialTraining())


def test_the_command_prints_the_overrides_of_the_best_trial(searched: Path, overrides: list[str]) -> None:
    result = CliRunner().invoke(vinegrape, ["tune", str(searched), "--trials", "2", *overrides])
    assert result.exit_code == 0, result.output
    printed = result.stdout.splitlines()[0].partition("trials: ")[2].split()
    cfg = compose_config(printed)
    assert cfg.optimizer.head_lr == pytest.approx(study(searched).best_params["optimizer.head_lr"])


def test_the_space_is_that_of_the_sweep() -> None:
    space = load_space()
    assert space["optimizer.backbone_lr"] == FloatDistribution(0.0001, 0.003, log=True)
    assert space["augmentation"] == CategoricalDistribution(["light", "moderate", "heavy"])


def test_each_parameter_of_the_sweep_is_an_override() -> None:
    compose_config([f"{name}={_first_value(distribution)}" for name, distribution in load_space().items()])


def _first_value(distribution: optuna.distributions.BaseDistribution) -> object:
    return distribution.low if isinstance(distribution, FloatDistribution) else distribution.choices[0]


def test_an_unsupported_distribution_is_reported(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("parameters: {optimizer.head_lr: {distribution: normal, mu: 0, sigma: 1}}")
    with pytest.raises(SettingError, match=r"optimizer.head_lr has distribution 'normal', which is not supported"):
        load_space(tmp_path / "sweep.yaml")


@pytest.mark.trains
def test_a_trial_is_trained_and_leaves_its_run(drawn: Path, tmp_path: Path) -> None:
    result = search([f"data.dir={drawn}", *SETTINGS], tmp_path / "tune", trials=1)
    (trial,) = study(tmp_path / "tune").trials
    run, config = (tmp_path / "tune" / "trial-000" / name for name in ("run.json", "config.yaml"))
    assert Run.read(run.parent).metrics["epochs"] == 2
    assert not [name for name in Run.read(run.parent).metrics if name.startswith("test_acc")]
    assert OmegaConf.load(config).optimizer.head_lr == pytest.approx(trial.params["optimizer.head_lr"])
    assert result.value == trial.value


@pytest.mark.trains
def test_the_sweep_runs_offline_with_values_of_its_space(drawn: Path, tmp_path: Path, monkeypatch) -> None:
    """Run the command that an agent of Weights & Biases would start, built by the code of wandb."""
    from wandb.sdk.launch.sweeps import utils as wandb_sweeps

    monkeypatch.setenv("DATA", str(drawn))
    sweep = OmegaConf.to_container(OmegaConf.load(SWEEP_FILE))
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask(load_space())
    values = {name: {"value": value} for name, value in trial.params.items()}
    arguments = wandb_sweeps.create_sweep_command_args({"args": values})["args_no_hyphens"]
    words = wandb_sweeps.create_sweep_command(sweep["command"])
    assert words[:4] == ["vinegrape", "train", f"data.dir={drawn}", "logger=wandb"]
    command = [part for word in words for part in (arguments if word == "${args_no_hyphens}" else [word])]
    command[0] = str(Path(sys.executable).with_name("vinegrape"))
    small = [*NETWORK, "model.frozen_stages=0", "debug=smoke", "input_size=32", f"run_dir={tmp_path / 'run'}"]
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    result = subprocess.run([*command, *small], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["metrics"]["epochs"] == 1
    assert list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))
    config = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert config.optimizer.weight_decay == pytest.approx(trial.params["optimizer.weight_decay"])
