from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.small_config import compose_config
from vinegrape_handler.errors import SettingError
from vinegrape_training.errors import DataError
from vinegrape_training.fit.config import check, check_one_process, check_repeated, data_dir, trainer_settings


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("input_size=big", r"input_size is 'big'; it must be a whole number from 16 to 4096\."),
        ("input_size=64.5", r"input_size is 64\.5; it must be a whole number"),
        ("seed=true", "seed is True; it must be a whole number"),
        ("~seed", "seed is None; it must be a whole number"),
        ("data.batch_size=0", "data.batch_size is 0; it must be a whole number from 1 to 65536"),
        ("data.test_fraction=1.5", r"data.test_fraction is 1\.5; it must be a number from 0 to 1"),
        ("model.frozen_stages=-1", "model.frozen_stages is -1; it must be a whole number from 0 to 1000"),
        ("trainer.max_epochs=null", "trainer.max_epochs is None; it must be a whole number from 1 to 100000"),
        ("trainer.patience=-1", "trainer.patience is -1; it must be a whole number"),
        ("trainer.timeout_s=0", "trainer.timeout_s is 0; it must be a whole number from 1"),
        ("trainer.average_decay=2", "trainer.average_decay is 2; it must be a number from 0 to 1"),
        ("optimizer.mixup=-1", "optimizer.mixup is -1; it must be a number from 0 to 100"),
        ("optimizer.head_lr=fast", "optimizer.head_lr is 'fast'; it must be a number from 0 to 1"),
        ("~optimizer.weight_decay", "optimizer.weight_decay is None; it must be a number from 0 to 1"),
        ("+optimizer.momentum=0.9", "optimizer.momentum is not a setting. Valid settings: backbone_lr, head_lr"),
    ],
)
def test_an_invalid_number_is_reported_with_its_name_value_and_range(override: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        check(compose_config(override))


def test_the_default_configuration_is_valid() -> None:
    check(compose_config())


def test_other_keys_of_the_trainer_are_passed_to_lightning() -> None:
    settings = trainer_settings(compose_config("trainer.max_epochs=7", "+trainer.gradient_clip_val=0.5"))
    assert (settings.max_epochs, settings.average_decay) == (7, None)
    assert settings.lightning["gradient_clip_val"] == 0.5
    assert "max_epochs" not in settings.lightning


def test_a_missing_data_dir_is_reported_with_the_override_to_give() -> None:
    with pytest.raises(DataError, match=r"give data\.dir=FOLDER"):
        data_dir(compose_config())


def test_a_relative_data_dir_becomes_absolute() -> None:
    assert data_dir(compose_config("data.dir=leaves")) == Path.cwd() / "leaves"


@pytest.mark.parametrize("override", ["trainer.devices=2", "trainer.num_nodes=2"])
def test_several_processes_are_rejected(override: str) -> None:
    with pytest.raises(SettingError, match=f"{override}.*; both must be 1"):
        check_one_process(compose_config(override))


def test_a_command_that_trains_repeatedly_rejects_an_evaluation() -> None:
    with pytest.raises(SettingError, match="evaluation=runs/x is only for the final `vinegrape train`"):
        check_repeated(compose_config("data.dir=leaves", "evaluation=runs/x"))


@pytest.mark.parametrize("override", ["optimiser.mixup=1", "data.dir", "input_size=${nothing}="])
def test_an_override_that_does_not_fit_is_one_line(override: str) -> None:
    with pytest.raises(SettingError, match="does not fit the configuration") as error:
        compose_config(override)
    assert "\n" not in str(error.value)
