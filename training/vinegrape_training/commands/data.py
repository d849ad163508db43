"""The commands of the training side. They import what they need when they run: a server has no training extras."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, TypeVar

import click

T = TypeVar("T")

_FOLDER = click.Path(path_type=Path)


@click.group()
def data() -> None:
    """Get the leaf images, check them, or draw stand-ins for them.

    A data set is a folder with one folder a class in it, named like the class:

    \b
        data/grapevine_leaves/Ak/Ak (1).png
        data/grapevine_leaves/Ala_Idris/Ala_Idris (1).png
        ...
    """


@data.command()
@click.option("--to", "target", type=_FOLDER, default="data/grapevine_leaves", show_default=True,
              help="Folder to make; it must not exist yet, or be empty.")  # fmt: skip
@click.pass_context
def fetch(context: click.Context, target: Path) -> None:
    """Download the Grapevine Leaves Image Dataset from Kaggle, then check it.

    It has 500 images of five varieties. If the download fails, the message says how to get it by hand.

    \b
    Example:
        vinegrape data fetch --to data/grapevine_leaves
    """
    from vinegrape_training.data.fetch import fetch as fetch_images

    copied = fetch_images(target)
    click.echo(f"{copied} images are in {target}.")
    context.invoke(check, folder=target)


@data.command()
@click.argument("folder", type=_FOLDER)
@click.option("--names", type=click.IntRange(min=0), default=10, show_default=True,
              help="How many names to print of each list.")  # fmt: skip
def check(folder: Path, names: int = 10) -> None:
    """Compare the images in FOLDER with the manifest of the known ones.

    The manifest holds name, class, size and SHA-256 of 400 of the 500 published images. Images beyond it are listed
    as new, which is no error. Exit code 1 if a known image is missing, changed or in another class's folder.

    \b
    Example:
        vinegrape data check data/grapevine_leaves
    """
    from vinegrape_training.data.manifest import compare, load_manifest, report

    comparison = compare(folder, load_manifest(), _bar("Reading images"))
    click.echo(report(comparison, names))
    if not comparison.intact:
        raise SystemExit(1)


@data.command()
@click.argument("folder", type=_FOLDER)
def describe(folder: Path) -> None:
    """Count, for each class in FOLDER, images, the leaf's part of them, transparent edges, and the leaf's colour.

    What differs between classes here is what a network could learn instead of the leaf's shape.

    \b
    Example:
        vinegrape data describe data/grapevine_leaves
    """
    from vinegrape_training.data.description import describe as describe_images
    from vinegrape_training.data.description import table

    click.echo(table(describe_images(folder, _bar("Reading images"))))


@data.command()
@click.argument("path", type=_FOLDER)
@click.option("--images-per-class", type=click.IntRange(min=1), default=20, show_default=True,
              help="Images of each of the five kinds.")  # fmt: skip
@click.option("--single", "kind", metavar="KIND", help="Draw one picture of this kind into the file PATH instead.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The same seed, the same leaves."
)
@click.option("--side", type=click.IntRange(min=16), default=256, show_default=True, help="Pixels a side.")
def draw(path: Path, images_per_class: int, kind: str | None, seed: int, side: int) -> None:
    """Draw leaf-like images of five kinds into the folder PATH, to try things without the real data set.

    The kinds carry the names of the five varieties and are not them: a model trained on these pictures knows nothing
    about grapevines.

    \b
    Examples:
        vinegrape data draw /tmp/leaves --images-per-class 40 --seed 1 --side 128
        vinegrape data draw docs/leaf.png --single Ala_Idris --seed 33 --side 511
    """
    from vinegrape_training.data import drawn_leaves

    if kind is None:
        drawn_leaves.draw_dataset(path, images_per_class, seed, side, _bar("Drawing leaves"))
        click.echo(f"{images_per_class} images of each of {', '.join(drawn_leaves.KINDS)} are in {path}.")
        return
    if kind not in drawn_leaves.KINDS:
        raise click.BadParameter(f"{kind!r} is not one of {', '.join(drawn_leaves.KINDS)}.", param_hint="--single")
    drawn_leaves.draw_leaf(kind, drawn_leaves.image_rng(seed, kind, 1), side).save(path, "PNG", optimize=True)
    click.echo(f"One {kind} is in {path}.")


@data.command()
@click.argument("folder", type=_FOLDER)
@click.argument("file", type=click.File("w", encoding="utf-8", lazy=True), default="-")
def manifest(folder: Path, file: IO[str]) -> None:
    """Write the manifest of the images in FOLDER to FILE, or to the standard output.

    This is how the manifest that `check` reads was made; digests are committed, images never.

    \b
    Example:
        vinegrape data manifest data/grapevine_leaves training/vinegrape_training/data/manifest.json
    """
    from vinegrape_training.data.manifest import dumps, scan

    text = dumps(scan(folder, _bar("Reading images")))
    file.write(text)  # naming `write` opens the file, and so empties it: only once there is something to write


def _bar(label: str) -> Callable[[Sequence[T]], Iterable[T]]:
    """Make what goes through items behind a progress bar; where nobody looks at a terminal it says the label alone."""

    def track(items: Sequence[T]) -> Iterable[T]:
        with click.progressbar(items, label=label, file=sys.stderr) as bar:
            yield from bar

    return track
