"""The effect of each optimisation on the time of a training step: `vinegrape bench training`.

Each variant of the step adds one optimisation to the variant before. Two neighbours run in two processes, because
memory settings belong to a process. Their steps take turns, so that other load on the machine affects both alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchvision.transforms import v2  # type: ignore[import-untyped]

from vinegrape_handler.images.decode import decode
from vinegrape_handler.images.resize import resize
from vinegrape_handler.memory import retain_freed_memory
from vinegrape_training.data import drawn_leaves
from vinegrape_training.data.augmentation.augment import augment
from vinegrape_training.data.augmentation.settings import Augmentation
from vinegrape_training.data.dataset import LIMITS
from vinegrape_training.fit.config import check, compose_config
from vinegrape_training.fit.lightning_module import ClassifierModule
from vinegrape_training.fit.settings import OptimizerSettings
from vinegrape_training.fit.trainer import precision
from vinegrape_training.models.factory import create_model, preprocessing
from vinegrape_training.progress import progress

Augment = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Variant:
    """One way to compute a training step.

    Attributes:
        name: the optimisation that it adds to the variant before.
        decoded_once: images are decoded once and kept in memory, not decoded in each step.
        batch_augmentation: a batch is augmented as a whole, not one image at a time.
        channels_last: memory format of the network.
        retains_memory: freed memory stays with the process.
        unfilled: new tensors are not filled; deterministic algorithms alone would fill them.
        bfloat16: the network computes in mixed precision.
        frozen_stages: number of frozen stages of the network.
    """

    name: str
    decoded_once: bool = False
    batch_augmentation: bool = False
    channels_last: bool = False
    retains_memory: bool = False
    unfilled: bool = False
    bfloat16: bool = False
    frozen_stages: int = 0


@dataclass(frozen=True)
class Setting:
    """What all variants share.

    Attributes:
        architecture: timm's name.
        files: encoded images, one batch.
        side: width and height of the network's input in pixels.
        augmentation: strength of the augmentation, which disturbs no images: torchvision cannot do the same.
    """

    architecture: str
    files: tuple[bytes, ...]
    side: int
    augmentation: Augmentation


@dataclass(frozen=True)
class StepSpeedRow:
    """The speed of one variant.

    Attributes:
        name: of the variant.
        images_per_second: in training steps.
        speedup: over the variant before; 1 for the first variant.
    """

    name: str
    images_per_second: float
    speedup: float


@dataclass(frozen=True)
class StepSpeed:
    """The speed of all variants.

    Attributes:
        device: name of the GPU, or of the CPU with its number of threads.
        images: per batch.
        side: width and height of the network's input in pixels.
        rows: one per variant, from no optimisation to all of them.
    """

    device: str
    images: int
    side: int
    rows: tuple[StepSpeedRow, ...]

    @property
    def total_speedup(self) -> float:
        """Speed of the last variant over the first: the product of all speed-ups."""
        return math.prod(row.speedup for row in self.rows)

    def table(self) -> str:
        """Format as aligned text."""
        return "\n".join(
            [
                f"{self.images} images of {self.side} px on {self.device}",
                *(f"{row.images_per_second:7.1f} images/s  x {row.speedup:4.2f}  {row.name}" for row in self.rows),
                f"x {self.total_speedup:.2f} from the first to the last",
            ]
        )


def measure_step_speed(rounds: int = 8, overrides: Sequence[str] = ()) -> StepSpeed:
    """Measure the training step without any optimisation, and then with one more optimisation at a time.

    The images are drawn leaves.

    Args:
        rounds: measured steps per variant, after one warm-up step.
        overrides: of `conf/train.yaml`.

    Raises:
        SettingError: an override or a setting is not valid.
    """
    cfg = compose_config(overrides)
    check(cfg)
    files = tuple(draw_leaf_png(number) for number in range(cfg.data.batch_size))
    setting = Setting(
        cfg.model.architecture, files, cfg.input_size, replace(Augmentation(**cfg.augmentation), disturbed=0.0)
    )
    steps = variants(cfg.model.frozen_stages)
    seconds = [step_seconds(before, after, setting, rounds) for before, after in pairwise(steps)]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return StepSpeed(device, len(files), setting.side, speed_rows(steps, seconds, len(files)))


def variants(frozen_stages: int) -> list[Variant]:
    """List the variants, from no optimisation to all of them. bfloat16 is left out if the hardware lacks it."""
    changes: list[tuple[str, dict[str, Any]]] = [
        ("images decoded once", {"decoded_once": True}),
        ("augmentation of the whole batch", {"batch_augmentation": True}),
        ("channels last", {"channels_last": True}),
        ("freed memory retained", {"retains_memory": True}),
        ("new tensors not filled", {"unfilled": True}),
        ("bfloat16", {"bfloat16": True}),
        (f"{frozen_stages} stages frozen", {"frozen_stages": frozen_stages}),
    ]
    steps = [Variant("images decoded and augmented one at a time, float32, no frozen stage")]
    for name, change in changes:
        if name != "bfloat16" or precision("auto") == "bf16-mixed":
            steps.append(dataclasses.replace(steps[-1], name=name, **change))
    return steps


def step_seconds(before: Variant, after: Variant, setting: Setting, rounds: int) -> Tensor:
    """Measure two variants in turns, each in a new process.

    Returns:
        Seconds per step, float64 [rounds, 2].
    """
    spawn = multiprocessing.get_context("spawn")  # a forked process would inherit torch's threads and malloc's settings
    with contextlib.ExitStack() as stack:
        pools = [
            stack.enter_context(ProcessPoolExecutor(1, spawn, initializer=_begin, initargs=(variant, setting)))
            for variant in (before, after)
        ]
        steps = progress(range(rounds + 1), after.name)
        rows = [[pool.submit(_step).result() for pool in pools] for _ in steps]
    return torch.tensor(rows[1:], dtype=torch.float64)


def speed_rows(steps: Sequence[Variant], seconds: Sequence[Tensor], images: int) -> tuple[StepSpeedRow, ...]:
    """Compute the speed of each variant.

    Args:
        steps: the variants, in order.
        seconds: per step, one float64 [rounds, 2] per pair of neighbours.
        images: per step.
    """
    rows = [StepSpeedRow(steps[0].name, images / float(seconds[0][:, 0].median()), 1.0)]
    for variant, pair in zip(steps[1:], seconds, strict=True):
        speedup = float((pair[:, 0] / pair[:, 1]).median())
        rows.append(StepSpeedRow(variant.name, images / float(pair[:, 1].median()), speedup))
    return tuple(rows)


def augment_one_by_one(augmentation: Augmentation) -> Augment:
    """Build the augmentation, without erasing, from torchvision's transforms, for one image at a time."""
    changes = v2.Compose(
        [
            v2.RandomHorizontalFlip(augmentation.flip),
            v2.RandomVerticalFlip(augmentation.flip),
            v2.ColorJitter(augmentation.brightness, 0, augmentation.saturation, augmentation.hue),
            v2.RandomAffine(
                augmentation.rotation_degrees,
                translate=(augmentation.translation, augmentation.translation),
                scale=augmentation.scale,
                shear=augmentation.shear_degrees,
                interpolation=v2.InterpolationMode.BILINEAR,
            ),
        ]
    )
    return lambda images: torch.stack([changes(image) for image in images])


class Stepper:
    """The network of one variant, with training steps like those of `fit.train`."""

    def __init__(self, variant: Variant, setting: Setting) -> None:
        if variant.retains_memory:
            retain_freed_memory("training")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = not variant.unfilled  # type: ignore[attr-defined]
        torch.manual_seed(0)
        self.variant, self.setting = variant, setting
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.augment: Augment = augment_one_by_one(setting.augmentation)
        if variant.batch_augmentation:
            opacity = torch.full((len(setting.files), 1, setting.side, setting.side), 255, dtype=torch.uint8)
            self.augment = lambda images: augment(
                torch.cat([images, opacity.to(images.device)], 1), setting.augmentation
            )
        self.images = self.decode()
        self.labels = torch.arange(len(self.images)) % 5
        model = create_model(setting.architecture, 5, "none")
        settings = OptimizerSettings(
            backbone_lr=1e-4, head_lr=1e-3, weight_decay=0.01, warmup_epochs=0, label_smoothing=0.1, mixup=0
        )
        self.classifier = ClassifierModule(model, preprocessing(model), settings, variant.frozen_stages).to(self.device)
        if not variant.channels_last:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        trained = [parameter for parameter in self.classifier.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def decode(self) -> Tensor:
        """Decode and resize all images: uint8 [N, 3, S, S]."""
        side = self.setting.side
        pixels = [resize(decode(file, LIMITS, side), side, "bicubic") for file in self.setting.files]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()

    def logits(self, batch: Tensor) -> Tensor:
        """Compute logits in the variant's memory format."""
        if self.variant.channels_last:
            return self.classifier(batch)  # type: ignore[no-any-return]
        return self.classifier.normalised(batch)  # type: ignore[no-any-return]

    def seconds(self) -> float:
        """Run one training step, and return its duration."""
        start = time.perf_counter()
        images = self.images if self.variant.decoded_once else self.decode()
        batch = self.augment(images.to(self.device)).float()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.variant.bfloat16):
            logits = self.logits(batch)
        loss = cross_entropy(logits.float(), self.labels.to(self.device))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start


_stepper: Stepper


def _begin(variant: Variant, setting: Setting) -> None:
    """Create the stepper of this process, which `_step` uses."""
    global _stepper
    _stepper = Stepper(variant, setting)


def _step() -> float:
    return _stepper.seconds()


def draw_leaf_png(number: int) -> bytes:
    """Draw a leaf as a PNG of 511 x 511 pixels, the size of the images in the data set."""
    kinds = list(drawn_leaves.KINDS)
    leaf = drawn_leaves.draw_leaf(kinds[number % len(kinds)], np.random.default_rng(number), 511)
    file = io.BytesIO()
    leaf.save(file, "PNG")
    return file.getvalue()
