"""The training step, the validation step, and the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms.v2 import MixUp  # type: ignore[import-untyped]

from vinegrape_training.data.datamodule import OTHER
from vinegrape_training.fit.settings import OptimizerSettings
from vinegrape_training.models.factory import Preprocessing, classifier_parameters
from vinegrape_training.models.normalised import Normalised
from vinegrape_training.models.outputs import ood_score
from vinegrape_training.models.stages import RemovedStages, freeze_stages

Teacher = Callable[[Tensor], Tensor]  # images [N, 3, S, S], 0 to 255, to probabilities [N, classes]


class ClassifierModule(LightningModule):
    """A network in training: images from 0 to 255 in, logits out.

    A network that is trained with outliers has one output more than there are classes: the last one, the logit of
    "something else". `outputs.ood_score` compares it with the logits of the classes. The score is trained with the
    logistic loss, as the log-odds that an image is an outlier.

    Attributes:
        normalised: the network with its normalisation; the network itself is `normalised.network`.
    """

    def __init__(
        self,
        model: nn.Module,
        preprocessing: Preprocessing,
        settings: OptimizerSettings,
        frozen_stages: int = 0,
        teacher: Teacher | None = None,
        outlier_weight: float | None = None,
    ) -> None:
        """Prepare a network for training. It is changed in place.

        Args:
            model: timm model, normalised float32 [N, 3, S, S] to logits [N, classes], or [N, classes + 1] if it is
                trained with outliers.
            preprocessing: gives the mean and standard deviation.
            settings: learning rates, schedule and loss.
            frozen_stages: number of the network's first stages, starting with the stem, that keep their weights and
                batch norm statistics.
            teacher: gives probabilities for training batches. Half of the loss is then the cross entropy with them.
            outlier_weight: of the loss of the OOD score; None if the network is trained without outliers.
        """
        super().__init__()
        # convolutions in bfloat16 and on GPUs are fast in channels_last; only the memory layout changes
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        freeze_stages(model, frozen_stages)
        self._frozen_stages, self.stages_removed = frozen_stages, False
        self.normalised = Normalised(model, preprocessing.mean, preprocessing.std)
        self.settings = settings
        self.teacher = teacher
        outputs: int = model.num_classes  # type: ignore[assignment]
        classes = outputs if outlier_weight is None else outputs - 1
        self.classes = classes
        self.outlier_weight = outlier_weight
        self.mix = MixUp(alpha=settings.mixup, num_classes=classes) if settings.mixup else None
        self.train_accuracy = MulticlassAccuracy(classes, average="micro")
        self.validation_accuracy = MulticlassAccuracy(classes, average="micro")

    def forward(self, images: Tensor) -> Tensor:
        """Compute the network's outputs for images [N, 3, S, S], 0 to 255, or for outputs of its removed stages."""
        images = images.contiguous(memory_format=torch.channels_last)
        outputs: Tensor = self.normalised.network(images) if self.stages_removed else self.normalised(images)
        return outputs

    @contextmanager
    def without_frozen_stages(self) -> Iterator[None]:
        """Take the frozen stages out of the network for a time: batches are then their outputs, [N, D, h, w]."""
        removed = RemovedStages(self.normalised.network, self._frozen_stages)
        self.stages_removed = True
        try:
            yield
        finally:
            removed.restore()
            self.stages_removed = False

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        """Compute the loss of images [N, 3, S, S] and labels, int64 [N], which are `OTHER` for outliers at the end."""
        images, labels = batch
        inside = labels != OTHER
        count = int(inside.sum())
        labels = labels[inside]
        mixed, targets = self.mix(images[:count], labels) if self.mix else (images[:count], labels)
        outputs = self(torch.cat([mixed, images[count:]])).float()
        logits = outputs[:count, : self.classes]
        loss = cross_entropy(logits, targets, label_smoothing=self.settings.label_smoothing)
        if self.teacher is not None:
            loss = (loss + cross_entropy(logits, self.teacher(mixed))) / 2
        if self.outlier_weight is not None:
            scores = ood_score(outputs, self.classes)
            loss = loss + self.outlier_weight * binary_cross_entropy_with_logits(scores, (~inside).float())
        self.train_accuracy(logits, labels)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(labels), sync_dist=True)
        self.log("train/accuracy", self.train_accuracy, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        """Log loss and accuracy of images [N, 3, S, S] and labels, int64 [N]."""
        images, labels = batch
        logits = self(images).float()[:, : self.classes]
        self.validation_accuracy(logits, labels)
        loss = cross_entropy(logits, labels)
        self.log("validation/loss", loss, prog_bar=True, batch_size=len(labels), sync_dist=True)
        self.log("validation/accuracy", self.validation_accuracy, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Create AdamW with the parameter groups "backbone" and "head", and a schedule that steps per batch."""
        model = self.normalised.network
        head = classifier_parameters(model)
        in_head = {id(parameter) for parameter in head}
        backbone = [p for p in model.parameters() if p.requires_grad and id(p) not in in_head]
        optimizer = AdamW(
            [
                {"params": backbone, "lr": self.settings.backbone_lr, "name": "backbone"},
                {"params": head, "lr": self.settings.head_lr, "name": "head"},
            ],
            weight_decay=self.settings.weight_decay,
        )
        steps = int(self.trainer.estimated_stepping_batches)
        warmup_steps = round(steps * self.settings.warmup_epochs / (self.trainer.max_epochs or 1))
        schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup_steps, steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def warmup_cosine(step: int, warmup_steps: int, steps: int) -> float:
    """Return the factor of the learning rate, 0 to 1: linear up to `warmup_steps`, then half a cosine down to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
