"""Train and test on a split that was made after augmentation, to show how misleading its accuracy is.

It is not part of the service. docs/notes/model-log.md has the result.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from vinegrape_training.data.augmentation.augment import augment
from vinegrape_training.data.augmentation.settings import Augmentation
from vinegrape_training.data.dataset import folds, load_dataset, scan
from vinegrape_training.fit.config import compose_config
from vinegrape_training.fit.train import train

COPIES = 4  # augmented copies per image
SEED = 1
FOLDS = 5


def write_copies(source: Path, target: Path, augmentation: Augmentation, side: int) -> None:
    """Write each image of a data set and its augmented copies as PNG files, one folder per class.

    Args:
        source: folder of the data set.
        target: folder to create.
        augmentation: strength of the augmentation.
        side: width and height of the written images, in pixels.
    """
    torch.manual_seed(0)
    dataset = scan(source)
    for path, image in zip(dataset.paths, load_dataset(dataset, side, "bicubic"), strict=True):
        opaque = np.full((*image.shape[:2], 1), 255, np.uint8)
        pixels = torch.from_numpy(np.concatenate([image, opaque], axis=2))
        batch = pixels.permute(2, 0, 1).repeat(COPIES, 1, 1, 1)
        changed = augment(batch, augmentation).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        folder = (target / path).parent
        folder.mkdir(parents=True, exist_ok=True)
        for number, copy in enumerate([image, *changed]):
            Image.fromarray(copy).save(folder / f"{Path(path).stem}-{number}.png")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1)
def main(folder: Path, overrides: tuple[str, ...]) -> None:
    """Write the copies and a training run to FOLDER, and print the misleading accuracy.

    OVERRIDES are those of `vinegrape train`.
    """
    cfg = compose_config(overrides)
    write_copies(Path(cfg.data.dir), folder / "images", Augmentation(**cfg.augmentation), cfg.input_size)
    cfg.data.dir, cfg.run_dir, cfg.seed = str(folder / "images"), str(folder / "run"), SEED
    # as many training steps as a fold of the original images takes
    cfg.trainer.max_epochs = max(1, round(cfg.trainer.max_epochs / (1 + COPIES)))
    metrics = train(cfg, folds(scan(folder / "images"), SEED, FOLDS)[0]).run.metrics
    click.echo(f"{metrics['test_accuracy']:.2%} of {metrics['test_images']:.0f} copies")


if __name__ == "__main__":
    main()
