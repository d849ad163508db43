"""The command `vinegrape`: a table of subcommands, and errors as one line."""

from __future__ import annotations

import sys

import click

from vinegrape_cli.lazy_group import LazyGroup
from vinegrape_handler.errors import VinegrapeError

COMMANDS = {
    "serve": "vinegrape_cli.serve:serve",
    "ready": "vinegrape_cli.serve:ready",
    "data": "vinegrape_training.commands.data:data",
    "train": "vinegrape_training.commands.model:train",
    "evaluate": "vinegrape_training.commands.model:evaluate",
    "tune": "vinegrape_training.commands.model:tune",
    "compare": "vinegrape_training.commands.model:compare",
    "export": "vinegrape_training.commands.model:export",
    "archive": "vinegrape_training.commands.model:archive",
    "loadtest": "vinegrape_loadtests.local_run:loadtest",
    "bench": "vinegrape_loadtests.bench.command:bench",
}


@click.group(
    cls=LazyGroup,
    commands_by_name=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(package_name="vinegrape")
def vinegrape() -> None:
    """Grapevine variety from the photo of a leaf.

    \b
    Serve an archive:              vinegrape serve
    Download or draw images:       vinegrape data --help
    From images to an archive:     vinegrape train, tune, evaluate, compare, export, archive
    Load a server, measure it:     vinegrape loadtest, bench
    """


def main() -> None:
    """Run the command line; one of our own errors is printed as one line, and the exit code is 1."""
    try:
        vinegrape()
    except VinegrapeError as error:
        click.echo(f"vinegrape: {error}", err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        click.echo(
            f"vinegrape: this command needs {error.name}, which is not installed here. "
            "Run: pip install -c constraints.txt -e '.[train]'",
            err=True,
        )
        sys.exit(1)
