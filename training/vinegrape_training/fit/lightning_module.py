"""One training step, one validation step, and the optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms.v2 import MixUp  # type: ignore[import-untyped]

from vinegrape_training.models.factory import Preprocessing, classifier_parameters, freeze_stages

Teacher = Callable[[Tensor], Tensor]  # images, [N, 3, S, S], 0 to 255, to probabilities, [N, classes]


class ClassifierModule(LightningModule):
    """A network in training: images from 0 to 255 in, logits out.

    Args:
        model: normalised float32 [N, 3, S, S] to logits [N, classes].
        num_classes: its outputs.
        preprocessing: its mean and standard deviation.
        backbone_lr: the learning rate of all but the last layer, after warm-up.
        head_lr: that of the last layer.
        weight_decay: AdamW's.
        warmup_epochs: over which the learning rates rise from 0; then they fall as a cosine to 0 at the last epoch.
        label_smoothing: share of the target spread over all classes; of the training loss alone.
        mixup: alpha of the Beta distribution by which two images and their labels are mixed; 0 mixes none.
        frozen_stages: how many of the network's first stages stay as they were pretrained, batch norm too; the stem
            is the first.
        teacher: gives probabilities for the training batches, of which half the loss is the cross entropy.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        preprocessing: Preprocessing,
        backbone_lr: float,
        head_lr: float,
        weight_decay: float,
        warmup_epochs: float,
        label_smoothing: float,
        mixup: float = 0.0,
        frozen_stages: int = 0,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        # the order that convolutions in bfloat16 and on GPUs are fast in; the result is the same network
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.backbone_lr = backbone_lr
        self.head_lr = head_lr
        self.weight_decay = weight_decay
        self.warmup_epochs = warmup_epochs
        self.label_smoothing = label_smoothing
        self.mix = MixUp(alpha=mixup, num_classes=num_classes) if mixup else None
        self.teacher = teacher
        freeze_stages(model, frozen_stages)
        self.register_buffer("mean", 255 * torch.tensor(preprocessing.mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(preprocessing.std).view(1, 3, 1, 1))
        self.train_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.validation_accuracy = MulticlassAccuracy(num_classes, average="micro")

    def forward(self, images: Tensor) -> Tensor:
        """Images, [N, 3, S, S], 0 to 255, to logits, [N, classes]."""
        normalised = (images.contiguous(memory_format=torch.channels_last) - self.mean) / self.std
        logits: Tensor = self.model(normalised)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Loss of images, [N, 3, S, S], and labels, int64 [N]."""
        images, labels = batch
        mixed, targets = self.mix(images, labels) if self.mix else (images, labels)
        logits = self(mixed).float()
        loss = cross_entropy(logits, targets, label_smoothing=self.label_smoothing)
        if self.teacher is not None:
            loss = (loss + cross_entropy(logits, self.teacher(mixed))) / 2
        self.train_accuracy(logits, labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(labels), sync_dist=True)
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Measure images, [N, 3, S, S], and labels, int64 [N]."""
        images, labels = batch
        logits = self(images).float()
        self.validation_accuracy(logits, labels)
        loss = cross_entropy(logits, labels)
        self.log("validation/loss", loss, prog_bar=True, batch_size=len(labels), sync_dist=True)
        self.log("validation/accuracy", self.validation_accuracy, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW on two parameter groups, backbone and head, with a schedule that steps with every batch."""
        head = classifier_parameters(self.model)
        in_head = {id(parameter) for parameter in head}
        backbone = [p for p in self.model.parameters() if p.requires_grad and id(p) not in in_head]
        optimizer = AdamW(
            [
                {"params": backbone, "lr": self.backbone_lr, "name": "backbone"},
                {"params": head, "lr": self.head_lr, "name": "head"},
            ],
            weight_decay=self.weight_decay,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        warmup_steps = round(steps * self.warmup_epochs / (self.trainer.max_epochs or 1))
        schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup_steps, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def warmup_cosine(step: int, warmup_steps: int, steps: int) -> float:
    """The factor of the learning rate at a step, 0 to 1: a line up to `warmup_steps`, then half a cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
