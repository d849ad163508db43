"""What makes a training step fast: `python -m vinegrape_training.benchmark`. It prints ratios, each to the line above.

The steps of all variants take turns, so that what else runs on the machine meets all alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import click
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn.functional import cross_entropy
from torchvision.transforms import v2  # type: ignore[import-untyped]

from vinegrape_training.augmentation import Augmentation, augment
from vinegrape_training.config import compose_config
from vinegrape_training.models import create_model, preprocessing
from vinegrape_training.module import Classifier

Augment = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        name: what it has that the one before has not.
        augment: a batch, uint8 [N, 3, S, S].
        bfloat16: whether the network computes in mixed precision.
        frozen_stages: of the network.
    """

    name: str
    augment: Augment
    bfloat16: bool
    frozen_stages: int


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
            v2.RandomApply([v2.GaussianBlur(kernel_size=5, sigma=(0.3, 1.2))], augmentation.blur),
        ]
    )
    return lambda images: torch.stack([changes(image) for image in images])


class Stepper:
    """A network of its own for one variant, which it trains step by step."""

    def __init__(self, variant: Variant, architecture: str, device: torch.device) -> None:
        model = create_model(architecture, 5, "none")
        self.variant, self.device = variant, device
        self.classifier = Classifier(
            model, 5, preprocessing(model), 1e-4, 1e-3, 0.01, 0, 0.1, frozen_stages=variant.frozen_stages
        ).to(device)
        trained = [parameter for parameter in self.classifier.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def seconds(self, images: Tensor, labels: Tensor) -> float:
        """How long one step takes, from decoded images to changed weights."""
        begin = time.perf_counter()
        batch = self.variant.augment(images.to(self.device))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.variant.bfloat16):
            logits = self.classifier(batch)
        loss = cross_entropy(logits.float(), labels.to(self.device))
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - begin


@click.command()
@click.option("--rounds", default=8, show_default=True, help="Steps of each variant; one more warms it up.")
@click.argument("overrides", nargs=-1)
def main(rounds: int, overrides: tuple[str, ...]) -> None:
    """Time a training step as it would be without what makes it fast, and with one thing after the other.

    OVERRIDES are those of `vinegrape train`; the images are random numbers.
    """
    cfg = compose_config(overrides)
    augmentation = Augmentation(**cfg.augmentation)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    singly = one_by_one(augmentation)

    def together(images: Tensor) -> Tensor:
        return augment(images, augmentation)

    frozen = cfg.model.frozen_stages
    variants = [
        Variant("an image at a time, float32, every stage", singly, bfloat16=False, frozen_stages=0),
        Variant("augmentation of the whole batch", together, bfloat16=False, frozen_stages=0),
        Variant("bfloat16", together, bfloat16=True, frozen_stages=0),
        Variant(f"{frozen} stages frozen", together, bfloat16=True, frozen_stages=frozen),
    ]
    steppers = [Stepper(variant, cfg.model.architecture, device) for variant in variants]
    size, side = cfg.data.batch_size, cfg.input_size
    images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8)
    labels = torch.arange(size) % 5
    steps = track(range(rounds + 1), "Stepping", console=Console(stderr=True), transient=True)
    rows = [[stepper.seconds(images, labels) for stepper in steppers] for _ in steps]
    times = torch.tensor(rows[1:], dtype=torch.float64)
    click.echo(f"{size} images of {side} px on {device}, {torch.get_num_threads()} threads")
    for number, variant in enumerate(variants):
        rate = size / times[:, number].median().item()
        ratio = (times[:, max(0, number - 1)] / times[:, number]).median().item()
        click.echo(f"{rate:7.1f} images/s  x {ratio:4.2f}  {variant.name}")


if __name__ == "__main__":
    main()
