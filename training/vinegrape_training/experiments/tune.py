"""A search for better settings: `vinegrape tune`, Optuna on `train`."""

from __future__ import annotations

from collections.abc import Sequence
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
from vinegrape_training.fit.train import train

STUDY_FILE = "study.db"

_STUDY_NAME = "vinegrape"


@dataclass(frozen=True)
class TuneResult:
    """What a search found.

    Attributes:
        overrides: the best trial's, for `vinegrape train`.
        value: its validation loss.
        trials: how many are finished.
    """

    overrides: tuple[str, ...]
    value: float
    trials: int


def tune(overrides: Sequence[str], folder: Path, trials: int) -> TuneResult:
    """Train until so many trials are finished, those included that the folder already holds.

    Each trial is measured by its best epoch's loss on the validation images. The test images are not looked at.

    Args:
        overrides: of `conf/train.yaml`. What they fix is not searched.
        folder: keeps the study, in SQLite, each trial's run, and the plot.
        trials: in total.

    Raises:
        SettingError: the folder's study is of another configuration, or the overrides leave nothing to search.
        VinegrapeError: whatever `train` cannot work with.
    """
    fixed = {override.partition("=")[0].lstrip("+") for override in overrides}
    space = {name: distribution for name, distribution in load_space().items() if name not in fixed}
    if not space:
        raise SettingError(f"These overrides fix all that could be searched: {', '.join(load_space())}.")
    cfg = compose_config(overrides)
    check_repeated(cfg)
    study = _open(folder, cfg, space, overrides)
    missing = trials - _finished(study)
    if missing > 0:
        # the sampler draws again after every start: from its seed alone, it would repeat its first trials
        study.sampler = optuna.samplers.TPESampler(seed=cfg.seed + len(study.trials))
        for _ in range(missing):
            _run_trial(study, overrides, space, folder)
    draw_search(
        {name: [trial.params[name] for trial in _completed(study)] for name in space},
        [trial.values[0] for trial in _completed(study)],
        [name for name, distribution in space.items() if getattr(distribution, "log", False)],
        folder / "search.png",
    )
    best = study.best_trial
    return TuneResult(tuple(_overrides(best.params)), study.best_value, _finished(study))


def _open(folder: Path, cfg: DictConfig, space: dict[str, BaseDistribution], overrides: Sequence[str]) -> optuna.Study:
    """The folder's study, new or gone on with; trials that were cut off count as failed."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / STUDY_FILE}", study_name=_STUDY_NAME, direction="minimize", load_if_exists=True
    )
    wanted: dict[str, Any] = {
        **{name: value for name, value in recipe(cfg).items() if name not in space},
        "seed": cfg.seed,
        "fractions": [cfg.data.validation_fraction, cfg.data.test_fraction],
        # of a group that is searched, such as augmentation, what a trial may not choose
        "within": sorted(override for override in overrides if override.partition(".")[0] in space),
        "data_digest": scan(data_dir(cfg)).digest(),
        "space": {name: str(distribution) for name, distribution in space.items()},
    }
    known = study.user_attrs.get("settings")
    if known is None or not _completed(study):
        study.set_user_attr("settings", wanted)
    elif differing := differences(known, wanted):
        raise SettingError(f"{folder} holds another search ({'; '.join(differing)}); give another folder.")
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(trial.number, state=TrialState.FAIL)
    return study


def _run_trial(study: optuna.Study, overrides: Sequence[str], space: dict[str, BaseDistribution], folder: Path) -> None:
    """Train once with settings that the study chooses; its value is the best epoch's validation loss."""
    trial = study.ask(space)
    chosen = _overrides(trial.params)
    try:
        cfg = compose_config([*overrides, *chosen])
        cfg.run_dir = str(folder / f"trial-{trial.number:03}")
        dataset = scan(data_dir(cfg))
        parts = split(dataset, cfg.seed, cfg.data.validation_fraction, cfg.data.test_fraction)
        result = train(cfg, Split(parts.train, parts.validation, ()))
    except BaseException:  # Ctrl-C too: the trial is over, and the study goes on another time
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


def _finished(study: optuna.Study) -> int:
    return len(_completed(study))
