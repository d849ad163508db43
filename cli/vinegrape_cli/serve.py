"""`vinegrape serve` and `vinegrape ready`."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any

import click

from vinegrape_handler.fields import ENVIRONMENT_PREFIX, choices
from vinegrape_server import settings as server_settings
from vinegrape_server.errors import NotReady
from vinegrape_server.host.http import get
from vinegrape_server.host.signals import stop_signals
from vinegrape_server.settings import ServeSettings


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


@click.command()
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


@click.command()
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
