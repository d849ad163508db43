"""Read the settings of `vinegrape serve` from a command line and environment variables."""

import os
from collections.abc import Mapping, Sequence
from unittest import mock

import click

from vinegrape_cli.serve import serve
from vinegrape_handler.errors import SettingError
from vinegrape_server.settings import ServeSettings, fields

# Every variable that sets an option of `vinegrape serve`
VARIABLES = {f"VINEGRAPE_{name.upper()}" for name in fields()}


def from_command_line(arguments: Sequence[str], environment: Mapping[str, str]) -> ServeSettings:
    """Return the settings of a server that starts with these arguments and only these variables.

    Raises:
        SettingError: an option, a variable or the settings file has a value that the server rejects.
    """
    with mock.patch.dict(os.environ, environment, clear=True):
        try:
            values = serve.make_context("vinegrape serve", list(arguments)).params
        except click.UsageError as error:
            raise SettingError(error.format_message()) from error
    return ServeSettings.from_values({name: value for name, value in values.items() if name != "config"})


def from_environment(environment: Mapping[str, str]) -> ServeSettings:
    """Return the settings of a server that starts with only these variables and no options.

    Raises:
        SettingError: a variable has a value that the server rejects.
    """
    return from_command_line([], environment)
