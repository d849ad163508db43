"""What makes a training step fast. It prints ratios, each to the line above.

Each variant has a process of its own, and its steps and those of the one before take turns: what else runs on the
machine meets both alike.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import click
import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchvision.transforms import v2  # type: ignore[import-untyped]

from vinegrape_handler.decode import decode
from vinegrape_handler.errors import VinegrapeError
from vinegrape_handler.memory import retain_freed_memory
from vinegrape_handler.resize import resize
from vinegrape_training.data import drawn_leaves
from vinegrape_training.data.augmentation import BLUR_SIGMA, Augmentation, augment
from vinegrape_training.data.dataset import LIMITS
from vinegrape_training.fit.config import check, compose_config
from vinegrape_training.fit.lightning_module import ClassifierModule
from vinegrape_training.fit.settings import OptimizerSettings
from vinegrape_training.fit.trainer import precision
from vinegrape_training.models.factory import create_model, preprocessing

Augment = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        name: what it has that the one before has not.
        decoded_once: whether images lie decoded in memory, instead of being decoded for each step.
        together: whether a batch is augmented as a whole, instead of an image at a time.
        channels_last: the order in which the network computes.
        keeps_memory: whether freed memory stays with the process.
        unfilled: whether new tensors are left as they come, which determinism alone would fill.
        bfloat16: whether the network computes in mixed precision.
        frozen_stages: of the network.
    """

    name: str
    decoded_once: bool = False
    together: bool = False
    channels_last: bool = False
    keeps_memory: bool = False
    unfilled: bool = False
    bfloat16: bool = False
    frozen_stages: int = 0


@dataclass(frozen=True)
class Setting:
    """What all variants share.

    Attributes:
        architecture: timm's name.
        files: the encoded images of a batch.
        side: pixels a side of what the network gets.
        augmentation: how strongly images are changed.
    """

    architecture: str
    files: tuple[bytes, ...]
    side: int
    augmentation: Augmentation


def variants(frozen_stages: int) -> list[Variant]:
    """From what a training would be without what makes it fast, one thing after the other."""
    changes: list[tuple[str, dict[str, Any]]] = [
        ("images decoded once", {"decoded_once": True}),
        ("augmentation of the whole batch", {"together": True}),
        ("channels last", {"channels_last": True}),
        ("freed memory kept", {"keeps_memory": True}),
        ("new tensors not filled", {"unfilled": True}),
        ("bfloat16", {"bfloat16": True}),
        (f"{frozen_stages} stages frozen", {"frozen_stages": frozen_stages}),
    ]
    made = [Variant("decoded and augmented an image at a time, float32, every stage")]
    for name, change in changes:
        if name != "bfloat16" or precision("auto") == "bf16-mixed":
            made.append(dataclasses.replace(made[-1], name=name, **change))
    return made


def one_by_one(augmentation: Augmentation) -> Augment:
    """The same kinds of change by torchvision's transforms, an image at a time."""
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
            v2.RandomApply([v2.GaussianBlur(kernel_size=5, sigma=BLUR_SIGMA)], augmentation.blur),
        ]
    )
    return lambda images: torch.stack([changes(image) for image in images])


class Stepper:
    """A network of its own for one variant, which it trains step by step as `train` does."""

    def __init__(self, variant: Variant, setting: Setting) -> None:
        if variant.keeps_memory:
            retain_freed_memory("training")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = not variant.unfilled  # type: ignore[attr-defined]
        torch.manual_seed(0)
        self.variant, self.setting = variant, setting
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.augment: Augment = one_by_one(setting.augmentation)
        if variant.together:
            self.augment = lambda images: augment(images, setting.augmentation)
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
        """All images, uint8 [N, 3, S, S]."""
        side = self.setting.side
        pixels = [resize(decode(file, LIMITS, side), side, "bicubic") for file in self.setting.files]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()

    def logits(self, batch: Tensor) -> Tensor:
        """The network's answers, its input in the order in which it computes."""
        if self.variant.channels_last:
            return self.classifier(batch)  # type: ignore[no-any-return]
        return self.classifier.normalised(batch)  # type: ignore[no-any-return]

    def seconds(self) -> float:
        """How long one step takes, to changed weights."""
        begin = time.perf_counter()
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
        return time.perf_counter() - begin


def _leaf(number: int) -> bytes:
    """A drawn leaf as a PNG of 511 by 511 pixels, like those of the data set."""
    kinds = list(drawn_leaves.KINDS)
    leaf = drawn_leaves.draw_leaf(kinds[number % len(kinds)], np.random.default_rng(number), 511)
    file = io.BytesIO()
    leaf.save(file, "PNG")
    return file.getvalue()


def _begin(variant: Variant, setting: Setting) -> None:
    """Make the stepper of this process, for `_step` to find."""
    global _stepper
    _stepper = Stepper(variant, setting)


def _step() -> float:
    return _stepper.seconds()


_stepper: Stepper


@click.command()
@click.option("--rounds", default=8, show_default=True, help="Steps of each variant; one more warms it up.")
@click.argument("overrides", nargs=-1)
def main(rounds: int, overrides: tuple[str, ...]) -> None:
    """Time a training step as it would be without what makes it fast, and with one thing after the other.

    OVERRIDES are those of `vinegrape train`; the images are drawn.
    """
    try:
        cfg = compose_config(overrides)
        check(cfg)
        augmentation = Augmentation(**cfg.augmentation)
    except VinegrapeError as error:
        raise click.ClickException(str(error)) from error
    leaves = tuple(_leaf(number) for number in range(cfg.data.batch_size))
    setting = Setting(cfg.model.architecture, leaves, cfg.input_size, augmentation)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    click.echo(f"{len(leaves)} images of {setting.side} px on {device}")
    total = 1.0
    for number, (before, after) in enumerate(pairwise(variants(cfg.model.frozen_stages))):
        times = take_turns(before, after, setting, rounds)
        rates = len(leaves) / times.median(dim=0).values
        ratio = (times[:, 0] / times[:, 1]).median().item()
        if number == 0:
            click.echo(f"{rates[0]:7.1f} images/s  x 1.00  {before.name}")
        click.echo(f"{rates[1]:7.1f} images/s  x {ratio:4.2f}  {after.name}")
        total *= ratio
    click.echo(f"x {total:.2f} from the first to the last")


def take_turns(before: Variant, after: Variant, setting: Setting, rounds: int) -> Tensor:
    """Seconds of each step, float64 [rounds, 2]."""
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's threads, and what malloc was told
    with contextlib.ExitStack() as stack:
        pools = [
            stack.enter_context(ProcessPoolExecutor(1, spawn, initializer=_begin, initargs=(variant, setting)))
            for variant in (before, after)
        ]
        steps = track(range(rounds + 1), after.name, console=Console(stderr=True), transient=True)
        rows = [[pool.submit(_step).result() for pool in pools] for _ in steps]
    return torch.tensor(rows[1:], dtype=torch.float64)


if __name__ == "__main__":
    main()
