"""Settings of a training, checked at construction: groups of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vinegrape_training.checks import check_number


@dataclass(frozen=True)
class OptimizerSettings:
    """Settings of AdamW, the learning rate schedule and the training loss.

    Attributes:
        backbone_lr: learning rate of all layers but the last, after warm-up.
        head_lr: learning rate of the last layer, after warm-up.
        weight_decay: of AdamW.
        warmup_epochs: number of epochs in which learning rates rise linearly from 0. Then they fall to 0 at the last
            step, as half a cosine.
        label_smoothing: fraction of the target that is spread evenly over all classes, in the training loss only.
        mixup: alpha of the Beta distribution that MixUp draws its weights from; 0 switches MixUp off.
    """

    backbone_lr: float
    head_lr: float
    weight_decay: float
    warmup_epochs: float
    label_smoothing: float
    mixup: float

    def __post_init__(self) -> None:
        for name in ("backbone_lr", "head_lr", "weight_decay", "label_smoothing"):
            check_number(f"optimizer.{name}", getattr(self, name), float, 0, 1)
        check_number("optimizer.warmup_epochs", self.warmup_epochs, float, 0, 1000)
        check_number("optimizer.mixup", self.mixup, float, 0, 100)


@dataclass(frozen=True)
class OutlierSettings:
    """Images that show none of the classes: the network learns a score that tells them from the classes.

    Attributes:
        dir: folder of outliers, see `data.outliers.scan_outliers`. None: the network gets no such score.
        per_batch: number of outliers in each training batch.
        weight: of their loss, which is added to the loss of the classes.
    """

    dir: str | None
    per_batch: int
    weight: float

    def __post_init__(self) -> None:
        check_number("outliers.per_batch", self.per_batch, int, 1, 65536)
        check_number("outliers.weight", self.weight, float, 0, 1000)


@dataclass(frozen=True)
class TrainerSettings:
    """How long to train, which weights to keep, and the options of Lightning's `Trainer`.

    Attributes:
        max_epochs: number of epochs, if training does not stop earlier.
        patience: number of epochs without improvement of `monitor` until training stops.
        average_decay: decay of the running average of the weights, which is kept; None keeps the weights themselves.
        monitor: metric that chooses the checkpoint, such as "validation/loss".
        mode: "min" or "max", the better direction of `monitor`.
        timeout_s: seconds that a process of a distributed training waits for the others, until it fails.
        lightning: all other keys of the group, passed to `Trainer` as they are.
    """

    max_epochs: int
    patience: int
    average_decay: float | None
    monitor: str
    mode: str
    timeout_s: int
    lightning: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_number("trainer.max_epochs", self.max_epochs, int, 1, 100_000)
        check_number("trainer.patience", self.patience, int, 0, 100_000)
        check_number("trainer.timeout_s", self.timeout_s, int, 1, 1_000_000)
        if self.average_decay is not None:
            check_number("trainer.average_decay", self.average_decay, float, 0, 1)

    @classmethod
    def of(cls, group: Mapping[str, Any]) -> TrainerSettings:
        """Separate our own settings in the group `trainer` from Lightning's.

        Raises:
            SettingError: a number outside its range.
        """
        lightning = dict(group)
        values = {name: lightning.pop(name, None) for name in cls.__dataclass_fields__ if name != "lightning"}
        return cls(**values, lightning=lightning)
