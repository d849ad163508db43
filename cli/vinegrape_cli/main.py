"""The command line `vinegrape`."""

from __future__ import annotations

import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any

import click

from vinegrape_handler.errors import VinegrapeError
from vinegrape_handler.settings import ENVIRONMENT_PREFIX, choices
from vinegrape_loadtests.bench.command import bench
from vinegrape_server import settings as server_settings
from vinegrape_server.errors import NotReady
from vinegrape_server.host.http import get
from vinegrape_server.host.signals import stop_signals
from vinegrape_server.settings import ServeSettings
from vinegrape_training.commands.data import data
from vinegrape_training.commands.model import archive, compare, evaluate, export, train, tune


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="vinegrape")
def vinegrape() -> None:
    """Grapevine variety from the photo of a leaf.

    \b
    Serve the archive at hand:         vinegrape serve
    Get, check or draw images:         vinegrape data --help
    From images to a new archive:      vinegrape train, tune, evaluate, compare, export, archive
    What serving it costs:             vinegrape bench
    """


def _setting_options(command: Any) -> Any:
    """One option for every setting: its name, meaning, default and variable stand where the setting is defined."""
    for name, (settings, field) in reversed(server_settings.fields().items()):
        values = choices(settings, name)
        kind = click.Choice(values) if values else type(field.default)
        command = click.option(
            f"--{name.replace('_', '-')}",
            name,
            type=kind,
            help=f"{field.metadata['meaning']}  [{ENVIRONMENT_PREFIX}{name.upper()}; default: {field.default}]",
        )(command)
    return command


@vinegrape.command()
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar=f"{ENVIRONMENT_PREFIX}CONFIG",
    help=f"a TOML file of these settings  [{ENVIRONMENT_PREFIX}CONFIG]",
)
@_setting_options
def serve(config: Path | None, **options: Any) -> None:
    """Serve a model archive with TorchServe, in the foreground, until Ctrl-C.

    An option wins over its environment variable, that over the file, that over the default.

    \b
    vinegrape serve
    vinegrape serve --rest-port 9080 --workers 4
    vinegrape serve --archive other.mar --backend torchscript
    """
    given = {name: value for name, value in options.items() if value is not None}
    settings = ServeSettings.load(given, config)
    with stop_signals() as stop:  # before what takes time: the kernel drops a signal that process 1 does not handle
        from vinegrape_server.serve import serve as run

        run(settings, stop)


@vinegrape.command()
@click.option("--config", type=click.Path(path_type=Path), envvar=f"{ENVIRONMENT_PREFIX}CONFIG", help="as for serve")
@click.option("--operations-host", help="as for serve")
@click.option("--operations-port", type=int, help="as for serve")
def ready(config: Path | None, **options: Any) -> None:
    """Exit with 0 if the server on this machine is ready for requests, else with 1 and the reason.

    \b
    until vinegrape ready; do sleep 1; done
    """
    given = {name: value for name, value in options.items() if value is not None}
    settings = ServeSettings.load(given, config)
    try:
        answer = get(settings.operations_host, settings.operations_port, "/readyz", timeout_s=5)
    except OSError as error:
        raise NotReady(f"Nobody answers on port {settings.operations_port}: {error}") from error
    if answer.status != HTTPStatus.OK:
        raise NotReady(f"Not ready: {answer.body.decode().strip()}")


for _command in (data, train, tune, evaluate, compare, export, archive, bench):
    vinegrape.add_command(_command)


def main() -> None:
    """Run the command line; an error of ours is one line that says what to do, and exit code 1."""
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
