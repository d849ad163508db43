"""Hyperparameter search with Optuna: `vinegrape tune`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from omegaconf import DictConfig
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from vinegrape_handler.errors import SettingError
from vinegrape_training.data.dataset import Split, scan, split
from vinegrape_training.evaluation.plots import draw_search
from vinegrape_training.experiments.search_space import load_space
from vinegrape_training.fit.config import check_repeated, compose_config, data_dir
from vinegrape_training.fit.recipe import differences, recipe
from vinegrape_training.fit.train import TrainResult, train

TrainTrial = Callable[[DictConfig, Split], TrainResult]

STUDY_FILE = "study.db"

_STUDY_NAME = "vinegrape"


@dataclass(frozen=True)
class TuneResult:
    """The result of a search.

    Attributes:
        overrides: of the best trial, for `vinegrape train`.
        value: validation loss of the best trial.
        trials: number of finished trials.
    """

    overrides: tuple[str, ...]
    value: float
    trials: int


def search(overrides: Sequence[str], folder: Path, trials: int, *, train_trial: TrainTrial = train) -> TuneResult:
    """Train until the folder holds the given number of finished trials.

    The value of a trial is the lowest validation loss of its epochs. The test images are not used.

    Args:
        overrides: of `conf/train.yaml`. Parameters that they set are not searched.
        folder: for the study (SQLite), one run per trial, and the plot.
        trials: total number, including those that the folder already holds.
        train_trial: trains one trial.

    Raises:
        SettingError: the folder holds a study of another configuration, or the overrides set all parameters.
        VinegrapeError: an error of `train_trial`.
    """
    fixed = {override.partition("=")[0].lstrip("+") for override in overrides}
    space = {name: distribution for name, distribution in load_space().items() if name not in fixed}
    if not space:
        raise SettingError(
            f"The overrides set all parameters of the search: {', '.join(load_space())}. Leave at least one out."
        )
    cfg = compose_config(overrides)
    check_repeated(cfg)
    study = _open(folder, cfg, space, overrides)
    missing = trials - len(_completed(study))
    if missing > 0:
        # A new process has a new sampler. With the same seed, it would propose the first trials again.
        study.sampler = optuna.samplers.TPESampler(seed=cfg.seed + len(study.trials))
        for _ in range(missing):
            _run_trial(study, overrides, space, folder, train_trial)
    draw_search(
        {name: [trial.params[name] for trial in _completed(study)] for name in space},
        [trial.values[0] for trial in _completed(study)],
        [name for name, distribution in space.items() if getattr(distribution, "log", False)],
        folder / "search.png",
    )
    best = study.best_trial
    return TuneResult(tuple(_overrides(best.params)), study.best_value, len(_completed(study)))


def _open(folder: Path, cfg: DictConfig, space: dict[str, BaseDistribution], overrides: Sequence[str]) -> optuna.Study:
    """Create or load the folder's study, and mark interrupted trials as failed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / STUDY_FILE}", study_name=_STUDY_NAME, direction="minimize", load_if_exists=True
    )
    settings: dict[str, Any] = {
        **{name: value for name, value in recipe(cfg).items() if name not in space},
        "seed": cfg.seed,
        "fractions": [cfg.data.validation_fraction, cfg.data.test_fraction],
        # overrides inside a searched group, such as augmentation.hue
        "within": sorted(override for override in overrides if override.partition(".")[0] in space),
        "data_digest": scan(data_dir(cfg)).digest(),
        "space": {name: str(distribution) for name, distribution in space.items()},
    }
    earlier = study.user_attrs.get("settings")
    if earlier is None or not _completed(study):
        study.set_user_attr("settings", settings)
    elif differing := differences(earlier, settings):
        raise SettingError(f"{folder} holds another search ({'; '.join(differing)}). Give another folder.")
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _run_trial(
    study: optuna.Study,
    overrides: Sequence[str],
    space: dict[str, BaseDistribution],
    folder: Path,
    train_trial: TrainTrial,
) -> None:
    """Train once with parameters that the study chooses, and report the lowest validation loss to the study."""
    trial = study.ask(space)
    chosen = _overrides(trial.params)
    try:
        cfg = compose_config([*overrides, *chosen])
        cfg.run_dir = str(folder / f"trial-{trial.number:03}")
        dataset = scan(data_dir(cfg))
        parts = split(dataset, cfg.seed, cfg.data.validation_fraction, cfg.data.test_fraction)
        result = train_trial(cfg, Split(parts.train, parts.validation, ()))
    except BaseException:  # Ctrl-C too: otherwise the study keeps the trial as running
        study.tell(trial, state=TrialState.FAIL)
        raise
    value = min(epoch["validation/loss"] for epoch in result.history)
    study.tell(trial, value)
    line = f"Trial {trial.number}: {value:.4f}, best {study.best_value:.4f}; {' '.join(chosen)}"
    Console(stderr=True).print(line, highlight=False)


def _overrides(parameters: dict[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in parameters.items()]


def _completed(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(states=[TrialState.COMPLETE])
