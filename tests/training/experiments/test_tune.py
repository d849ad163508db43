from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution
from wandb.sdk.launch.sweeps import utils as wandb_sweeps

from tests.support.small_config import SMALL
from vinegrape_cli.main import vinegrape
from vinegrape_handler.errors import SettingError
from vinegrape_training.data.dataset import scan, split
from vinegrape_training.experiments.search_space import SWEEP_FILE, load_space
from vinegrape_training.experiments.tune import tune
from vinegrape_training.fit.config import compose_config
from vinegrape_training.fit.run import Run

# small_cnn has no stages to freeze; the average is searched
NETWORK = tuple(override for override in SMALL if not override.startswith("trainer.average_decay"))
STEPS = (*NETWORK, "trainer.max_epochs=2", "data.batch_size=8", "model.frozen_stages=0")


@pytest.fixture(scope="module")
def search(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search of two trials."""
    folder = tmp_path_factory.mktemp("tune") / "tune"
    tune([f"data.dir={drawn}", *STEPS], folder, trials=2)
    return folder


def study(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="vinegrape", storage=f"sqlite:///{folder / 'study.db'}")


def test_trials_lie_in_the_space_and_are_what_was_trained(search: Path) -> None:
    space = load_space()
    for trial in study(search).trials:
        assert set(trial.params) == set(space) - {"model.frozen_stages"}
        config = OmegaConf.load(search / f"trial-{trial.number:03}" / "config.yaml")
        assert config.optimizer.backbone_lr == pytest.approx(trial.params["optimizer.backbone_lr"])
        assert 0.0001 <= config.optimizer.backbone_lr <= 0.003
        assert config.trainer.average_decay == trial.params["trainer.average_decay"]


def test_test_images_are_neither_learnt_nor_measured(search: Path, drawn: Path) -> None:
    parts = split(scan(drawn), 0, 0.15, 0.2)
    run = Run.read(search / "trial-000")
    assert (run.split.train, run.split.validation, run.split.test) == (parts.train, parts.validation, ())
    assert not [name for name in run.metrics if name.startswith("test_acc")]


def test_it_goes_on_and_fills_up_what_is_missing(search: Path, drawn: Path) -> None:
    before = [trial.value for trial in study(search).trials]
    cut_off = study(search).ask()  # as of a process that was killed
    result = tune([f"data.dir={drawn}", *STEPS], search, trials=3)
    after = study(search).trials
    assert [trial.value for trial in after[:2]] == before
    assert after[cut_off.number].state.name == "FAIL"
    assert (result.trials, len(after)) == (3, 4)
    assert result.value == min(trial.value for trial in after if trial.value is not None)
    assert len({trial.params["optimizer.head_lr"] for trial in after if trial.params}) == 3
    assert tune([f"data.dir={drawn}", *STEPS], search, trials=2) == result
    assert (search / "search.png").stat().st_size > 5000


def test_another_configuration_is_another_search(search: Path, drawn: Path) -> None:
    with pytest.raises(SettingError, match=r"holds another search \(optimizer.mixup is 0.0, now 0.2\)"):
        tune([f"data.dir={drawn}", *STEPS, "optimizer.mixup=0.2"], search, trials=9)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.validation_fraction=0.3", r"fractions is \[0.15, 0.2\], now \[0.3, 0.2\]"),
        ("augmentation.hue=0.1", r"within is \[\], now \['augmentation.hue=0.1'\]"),
    ],
)
def test_other_images_or_another_space_are_another_search(
    override: str, message: str, search: Path, drawn: Path
) -> None:
    with pytest.raises(SettingError, match=message):
        tune([f"data.dir={drawn}", *STEPS, override], search, trials=9)


def test_a_trial_that_cannot_train_ends_it(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="brightness"):
        tune([f"data.dir={drawn}", *STEPS, "augmentation.brightness=2"], tmp_path / "tune", trials=2)
    assert [trial.state.name for trial in study(tmp_path / "tune").trials] == ["FAIL"]


def test_all_fixed_is_no_search(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="These overrides fix all that could be searched"):
        tune([f"data.dir={drawn}", *(f"{name}=1" for name in load_space())], tmp_path, trials=1)


def test_the_command_prints_overrides_to_paste(search: Path, drawn: Path) -> None:
    result = CliRunner().invoke(vinegrape, ["tune", str(search), "--trials", "2", f"data.dir={drawn}", *STEPS])
    assert result.exit_code == 0, result.output
    overrides = result.stdout.splitlines()[0].partition("trials: ")[2].split()
    cfg = compose_config(overrides)
    assert cfg.optimizer.head_lr == pytest.approx(study(search).best_params["optimizer.head_lr"])


def test_the_space_is_that_of_the_sweep() -> None:
    space = load_space()
    assert space["optimizer.backbone_lr"] == FloatDistribution(0.0001, 0.003, log=True)
    assert space["augmentation"] == CategoricalDistribution(["light", "moderate", "heavy"])
    compose_config([f"{name}={_lowest(each)}" for name, each in space.items()])  # each is an override that exists


def _lowest(distribution: optuna.distributions.BaseDistribution) -> object:
    return distribution.low if isinstance(distribution, FloatDistribution) else distribution.choices[0]


def test_an_unknown_kind_of_parameter_is_named(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("parameters: {optimizer.head_lr: {distribution: normal, mu: 0, sigma: 1}}")
    with pytest.raises(SettingError, match=r"optimizer.head_lr has distribution 'normal'; write values"):
        load_space(tmp_path / "sweep.yaml")


def test_the_sweep_runs_offline_with_values_of_its_space(drawn: Path, tmp_path: Path, monkeypatch) -> None:
    """What an agent of Weights & Biases would start, as its own code makes the command."""
    monkeypatch.setenv("DATA", str(drawn))
    sweep = OmegaConf.to_container(OmegaConf.load(SWEEP_FILE))
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask(load_space())
    values = {name: {"value": value} for name, value in trial.params.items()}
    given = wandb_sweeps.create_sweep_command_args({"args": values})["args_no_hyphens"]
    words = wandb_sweeps.create_sweep_command(sweep["command"])
    assert words[:4] == ["vinegrape", "train", f"data.dir={drawn}", "logger=wandb"]
    command = [part for word in words for part in (given if word == "${args_no_hyphens}" else [word])]
    command[0] = str(Path(sys.executable).with_name("vinegrape"))
    here = [*NETWORK, "model.frozen_stages=0", "debug=smoke", "input_size=32", f"run_dir={tmp_path / 'run'}"]
    environment = os.environ | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    done = subprocess.run([*command, *here], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["metrics"]["epochs"] == 1
    assert list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))
    config = OmegaConf.load(tmp_path / "run" / "config.yaml")
    assert config.optimizer.weight_decay == pytest.approx(trial.params["optimizer.weight_decay"])
