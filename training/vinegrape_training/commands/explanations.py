"""The subcommand `explanations`."""

from __future__ import annotations

from pathlib import Path

import click

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("model", type=_PATH)
@click.argument("data", type=_PATH)
@click.option("--images", type=click.IntRange(1), default=400, show_default=True, help="How many images to explain.")
def explanations(model: Path, data: Path, images: int) -> None:
    """Measure how much of the heat of the explanations of MODEL is on the leaves of DATA.

    MODEL is an archive or the folder of an export. The images of DATA must have a transparent background: it says what
    is leaf, but the network does not see it.

    \b
    Example:
        vinegrape explanations model_store/vinegrape.mar data/grapevine_leaves
    """
    from vinegrape_training.evaluation.explanation import measure_heat
    from vinegrape_training.export.archive import opened

    with opened(model) as folder:
        click.echo(measure_heat(folder, data, images))
