"""The command group `vinegrape data`.

Commands import libraries when they run, because serving environments do not install the training extra.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO

import click

_FOLDER = click.Path(path_type=Path)


@click.group()
def data() -> None:
    """Download, check, draw or shard leaf images.

    A data set is a folder that holds one folder of images per class. The class has the folder's name:

    \b
        data/grapevine_leaves/Ak/Ak (1).png
        data/grapevine_leaves/Ala_Idris/Ala_Idris (1).png
        ...
    """


@data.command()
@click.option("--to", "target", type=_FOLDER, default="data/grapevine_leaves", show_default=True,
              help="Folder to create; it must not exist yet or must be empty.")  # fmt: skip
@click.pass_context
def fetch(context: click.Context, target: Path) -> None:
    """Download the Grapevine Leaves Image Dataset from Kaggle, then check it.

    It has 500 images of five varieties. If the download fails, the error message explains how to get it by hand.

    \b
    Example:
        vinegrape data fetch --to data/grapevine_leaves
    """
    from vinegrape_training.data.fetch import fetch as fetch_images

    copied = fetch_images(target)
    click.echo(f"Copied {copied} images to {target}.")
    context.invoke(check, folder=target)


@data.command()
@click.argument("folder", type=_FOLDER)
@click.option("--names", type=click.IntRange(min=0), default=10, show_default=True,
              help="Number of names to print per list.")  # fmt: skip
def check(folder: Path, names: int = 10) -> None:
    """Compare the images in FOLDER with the manifest of known images.

    The manifest holds name, class, size and SHA-256 of 400 of the 500 published images. Other images are listed as
    new; this is not an error. The exit code is 1 if a known image is missing, changed or in another class's folder.

    \b
    Example:
        vinegrape data check data/grapevine_leaves
    """
    from vinegrape_training.data.manifest import compare, load_manifest, report

    comparison = compare(folder, load_manifest())
    click.echo(report(comparison, names))
    if not comparison.intact:
        raise SystemExit(1)


@data.command()
@click.argument("folder", type=_FOLDER)
def describe(folder: Path) -> None:
    """Print statistics of each class in FOLDER: number of images, area and colour of the leaf, transparency.

    A network can learn such differences between classes instead of the shape of the leaf.

    \b
    Example:
        vinegrape data describe data/grapevine_leaves
    """
    from vinegrape_training.data.description import describe as describe_images
    from vinegrape_training.data.description import table

    click.echo(table(describe_images(folder)))


@data.command()
@click.argument("path", type=_FOLDER)
@click.option("--images-per-class", type=click.IntRange(min=1), default=20, show_default=True,
              help="Number of images of each of the five kinds.")  # fmt: skip
@click.option("--single", "kind", metavar="KIND", help="Draw one image of this kind into the file PATH instead.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="Random seed; the same seed gives the same images.")  # fmt: skip
@click.option("--side", type=click.IntRange(min=16), default=256, show_default=True,
              help="Width and height of the images, in pixels.")  # fmt: skip
def draw(path: Path, images_per_class: int, kind: str | None, seed: int, side: int) -> None:
    """Draw synthetic leaves of five kinds into the folder PATH, to try the commands without the real data set.

    The kinds have the names of the five varieties but do not look like them. A model trained on these images cannot
    recognise grapevines.

    \b
    Examples:
        vinegrape data draw /tmp/leaves --images-per-class 40 --seed 1 --side 128
        vinegrape data draw docs/leaf.png --single Ala_Idris --seed 2 --side 511
    """
    from vinegrape_training.data import drawn_leaves

    if kind is None:
        drawn_leaves.draw_dataset(path, images_per_class, seed, side)
        click.echo(f"Drew {images_per_class} images of each of {', '.join(drawn_leaves.KINDS)} into {path}.")
        return
    if kind not in drawn_leaves.KINDS:
        raise click.BadParameter(f"{kind!r} is not one of {', '.join(drawn_leaves.KINDS)}.", param_hint="--single")
    drawn_leaves.draw_leaf(kind, drawn_leaves.image_rng(seed, kind, 1), side).save(path, "PNG", optimize=True)
    click.echo(f"Drew one image of {kind} into {path}.")


@data.command()
@click.argument("folder", type=_FOLDER)
@click.argument("file", type=click.File("w", encoding="utf-8", lazy=True), default="-")
def manifest(folder: Path, file: IO[str]) -> None:
    """Write the manifest of the images in FOLDER to FILE, or to standard output.

    `vinegrape data check` compares images with such a manifest.

    \b
    Example:
        vinegrape data manifest data/grapevine_leaves training/vinegrape_training/data/manifest.json
    """
    from vinegrape_training.data.manifest import dumps, scan

    text = dumps(scan(folder))
    file.write(text)  # Click empties the lazy file on the first access of `write`, so scan first


@data.command()
@click.argument("folder", type=_FOLDER)
@click.argument("destination")
@click.option("--shard-mb", type=click.IntRange(min=1), default=100, show_default=True,
              help="Size of a shard in MB; the last one is smaller.")  # fmt: skip
def shard(folder: Path, destination: str, shard_mb: int) -> None:
    """Write the images in FOLDER into tar files in DESTINATION, for data that does not fit into memory.

    DESTINATION is a new folder, or a URL such as gs://BUCKET/FOLDER, which needs the program gsutil. With the same seed
    and fractions, training splits shards as it splits FOLDER.

    \b
    Example:
        vinegrape data shard data/grapevine_leaves data/shards
        vinegrape train data=shards data.dir=data/shards
    """
    from vinegrape_training.data.shards import write_shards

    dataset = write_shards(folder, destination, shard_mb * 10**6)
    click.echo(f"Wrote {len(dataset.paths)} images in {len(dataset.shards)} shards to {destination}.")
    click.echo(f"Next: vinegrape train data=shards data.dir={destination}")
