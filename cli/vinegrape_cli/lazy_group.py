"""A Click group that imports the module of a command only when the command runs.

See "Lazily Loading Subcommands" in Click's documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import click


class LazyCommand(NamedTuple):
    """The location and the summary of a command.

    Attributes:
        target: `module:attribute` of the Click command.
        summary: its line in the group's help. It stands here so that the help does not import the command.
        extra: the extra of pyproject.toml that installs what the command imports; empty if none is needed.
    """

    target: str
    summary: str
    extra: str = ""

    @property
    def package(self) -> str:
        """The package that defines the command."""
        return self.target.partition(".")[0]


class LazyGroup(click.Group):
    """A Click group that loads its commands when they are run.

    Its help does not list a command whose package is not installed: an image for serving has no training commands.

    Args:
        lazy_commands: the commands by name, in the order of the help.
    """

    def __init__(self, *args: Any, lazy_commands: Mapping[str, LazyCommand], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy_commands = lazy_commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands whose package is installed."""
        return [name for name, command in self.lazy_commands.items() if find_spec(command.package)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command and return it; None if the group has no command of this name.

        Raises:
            ClickException: the command's package or a library that its module imports is not installed.
        """
        lazy = self.lazy_commands.get(cmd_name)
        if lazy is None:
            return None
        if find_spec(lazy.package) is None:
            raise click.ClickException(
                f"`{ctx.info_name} {cmd_name}` needs the package {lazy.package}, which is not installed here. "
                "Run it in an environment with the whole project."
            )
        module, _, attribute = lazy.target.partition(":")
        try:
            command: click.Command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise _missing_library(lazy, error) from error
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises:
            ClickException: a library that the command imports is not installed.
        """
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            raise _missing_library(self.lazy_commands[str(ctx.invoked_subcommand)], error) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands, without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.lazy_commands[name].summary) for name in self.list_commands(ctx)])


def _missing_library(command: LazyCommand, error: ModuleNotFoundError) -> click.ClickException:
    extra = f"[{command.extra}]" if command.extra else ""
    return click.ClickException(
        f"This command needs {error.name}, which is not installed here. "
        f"Run: pip install -c constraints.txt -e '.{extra}'"
    )
