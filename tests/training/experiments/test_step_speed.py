"""The measurement of the training step: its figures by hand, and steps in real processes."""

from __future__ import annotations

import pytest
import torch

from vinegrape_handler.errors import SettingError
from vinegrape_training.data.augmentation.settings import Augmentation
from vinegrape_training.experiments import step_speed
from vinegrape_training.experiments.step_speed import Setting, StepSpeed, Variant, measure_step_speed, speed_rows
from vinegrape_training.fit.config import compose_config
from vinegrape_training.fit.trainer import precision


def test_speeds_by_hand() -> None:
    steps = [Variant("all slow"), Variant("decoded once"), Variant("frozen")]
    seconds = [torch.tensor([[4.0, 2.0], [8.0, 2.0], [6.0, 1.0]]), torch.tensor([[2.0, 1.0]])]
    first, second, third = speed_rows(steps, seconds, images=12)
    assert (first.name, first.images_per_second, first.speedup) == ("all slow", 2.0, 1.0)
    # medians: 2 s per step; of the ratios 2, 4 and 6
    assert (second.images_per_second, second.speedup) == (6.0, 4.0)
    assert (third.images_per_second, third.speedup) == (12.0, 2.0)
    speed = StepSpeed("CPU, 2 threads", 12, 320, (first, second, third))
    assert speed.table().splitlines() == [
        "12 images of 320 px on CPU, 2 threads",
        "    2.0 images/s  x 1.00  all slow",
        "    6.0 images/s  x 4.00  decoded once",
        "   12.0 images/s  x 2.00  frozen",
        "x 8.00 from the first to the last",
    ]


def test_each_variant_adds_one_change_to_the_one_before() -> None:
    first, *others = step_speed.variants(frozen_stages=4)
    assert first == Variant(first.name)
    before = vars(first)
    for variant in others:
        changed = {name for name, value in vars(variant).items() if value != before[name]}
        assert len(changed - {"name"}) == 1
        before = vars(variant)
    # training uses bfloat16 only where the hardware computes in it
    assert others[-1].bfloat16 == (precision("auto") == "bf16-mixed")
    assert others[-1].frozen_stages == 4


@pytest.mark.trains
def test_two_variants_are_measured_in_separate_processes() -> None:
    cfg = compose_config([])
    leaves = tuple(step_speed.draw_leaf_png(number) for number in range(2))
    setting = Setting("small_cnn", leaves, 32, Augmentation(**cfg.augmentation))
    first, second, *_ = step_speed.variants(frozen_stages=0)
    seconds = step_speed.step_seconds(first, second, setting, rounds=2)
    assert seconds.shape == (2, 2)
    assert (seconds > 0).all()


@pytest.mark.trains
@pytest.mark.nightly
def test_all_variants_are_measured() -> None:
    speed = measure_step_speed(1, ["input_size=64", "data.batch_size=4"])
    assert (speed.images, speed.side) == (4, 64)
    assert [row.name for row in speed.rows] == [variant.name for variant in step_speed.variants(4)]
    assert all(row.speedup > 0 for row in speed.rows)


def test_an_invalid_setting_is_reported() -> None:
    with pytest.raises(SettingError, match=r"data.batch_size"):
        measure_step_speed(1, ["data.batch_size=none"])
