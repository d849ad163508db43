"""A Click group that imports a command's module only when the command is used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import click


class LazyGroup(click.Group):
    """A group whose commands are given as `module:attribute`; see Click's documentation, "Lazily Loading Subcommands".

    Commands of a package that is not installed are not listed: an image that serves has no training commands.
    """

    def __init__(self, *args: Any, commands_by_name: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._commands_by_name = commands_by_name

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the commands whose package is installed, in the order of the table."""
        return [name for name, target in self._commands_by_name.items() if find_spec(target.partition(".")[0])]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command of this name; None if there is none.

        Raises:
            ClickException: the command's package is not installed.
        """
        target = self._commands_by_name.get(cmd_name)
        if target is None:
            return None
        module, _, attribute = target.partition(":")
        package = module.partition(".")[0]
        if find_spec(package) is None:
            raise click.ClickException(
                f"`vinegrape {cmd_name}` needs the package {package}, which is not installed here. "
                "Run it from a checkout of the project: make test sets up an environment that has all commands."
            )
        command: click.Command = getattr(import_module(module), attribute)
        return command
