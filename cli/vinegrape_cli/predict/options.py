"""The options of the commands that classify files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from vinegrape_server.settings import ServeSettings

_Function = TypeVar("_Function", bound=Callable[..., Any])

paths_argument = click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))

concurrency_option = click.option(
    "--concurrency", type=click.IntRange(min=1), default=8, show_default=True, help="images at the same time, at most"
)


def archive_option(help_text: str) -> Callable[[_Function], _Function]:
    """Return the option `--archive`, whose default is the archive that `vinegrape serve` serves."""
    return click.option(
        "--archive",
        type=click.Path(path_type=Path),
        default=ServeSettings().archive,
        show_default=True,
        envvar="VINEGRAPE_ARCHIVE",
        show_envvar=True,
        help=help_text,
    )
