"""Command-line options for the settings of the server.

Click takes the value of a setting from the first of these that has it:

1. the option, such as `--rest-port 9080`
2. the environment variable, such as `VINEGRAPE_REST_PORT=9080`
3. the TOML file of `--config`, such as `rest_port = 9080`
4. the default of the setting
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from vinegrape_handler.errors import SettingError
from vinegrape_handler.fields import ENVIRONMENT_PREFIX, choices
from vinegrape_server.settings import fields

Command = TypeVar("Command", bound=Callable[..., Any])

# Cloud Run and Vertex AI name the port that the container must listen on: the edge's, or REST's without the edge
_PORT_VARIABLES = ("PORT", "AIP_HTTP_PORT")


class SettingOption(click.Option):
    """An option whose error messages name the source of the value: the option, the variable or the file."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Return the value of the option's variable; for the port that clients use, that of the platform if unset."""
        value = super().resolve_envvar_value(ctx)
        if value or self.name != ("edge_port" if ctx.params.get("edge") else "rest_port"):
            return value
        return next(filter(None, map(os.environ.get, _PORT_VARIABLES)), None)

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return the source of the value, such as `workers in vinegrape.toml` or `VINEGRAPE_WORKERS`."""
        source = ctx.get_parameter_source(self.name) if ctx and self.name else None
        if ctx and source is ParameterSource.DEFAULT_MAP:
            return f"{self.name} in {ctx.params['config']}"
        if source is ParameterSource.ENVIRONMENT:
            variables = (str(self.envvar), *_PORT_VARIABLES)
            return next(variable for variable in variables if os.environ.get(variable))
        return click.Parameter.get_error_hint(self, ctx)


def setting_options(*names: str) -> Callable[[Command], Command]:
    """Decorate a command with the option `--config` and one option per setting.

    Args:
        names: the settings; all settings if empty.
    """

    def decorate(command: Command) -> Command:
        for name in reversed(names or tuple(fields())):
            command = _option(name)(command)
        return click.option(
            "--config",
            type=click.Path(path_type=Path),
            is_eager=True,  # before the other options, which read their values from it
            callback=_read_config,
            envvar=f"{ENVIRONMENT_PREFIX}CONFIG",
            show_envvar=True,
            help="TOML file with settings, such as: rest_port = 9080",
        )(command)

    return decorate


def read_settings_file(path: Path) -> dict[str, str]:
    """Read a TOML file of settings.

    Returns:
        Values by name, as text: Click parses them like those of environment variables.

    Raises:
        SettingError: the file cannot be read, or it has a key that is not the name of a setting.
    """
    try:
        values = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:  # ValueError: neither TOML nor UTF-8
        raise SettingError(f"Cannot read the settings file {path}: {error}") from error
    unknown = values.keys() - fields().keys()
    if unknown:
        plural = "s" if len(unknown) > 1 else ""
        raise SettingError(
            f"{path}: unknown setting{plural} {', '.join(sorted(unknown))}. Valid settings: {', '.join(fields())}"
        )
    return {name: str(value) for name, value in values.items()}


def _option(name: str) -> Callable[[Command], Command]:
    settings, field = fields()[name]
    values = choices(settings, name)
    option = name.replace("_", "-")
    return click.option(
        f"--{option}/--no-{option}" if isinstance(field.default, bool) else f"--{option}",
        name,
        cls=SettingOption,
        is_eager=name == "edge",  # before the ports, whose variables depend on it
        type=click.Choice(values) if values else type(field.default),
        default=field.default,
        show_default=True,
        envvar=f"{ENVIRONMENT_PREFIX}{name.upper()}",
        show_envvar=True,
        help=field.metadata["meaning"],
    )


def _read_config(ctx: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    if path is not None:
        ctx.default_map = read_settings_file(path)
    return path
