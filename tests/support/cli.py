"""Run the command `vinegrape`."""

import os
import subprocess

from click.testing import CliRunner

from tests.support.server import command, run_command
from vinegrape_cli.main import vinegrape
from vinegrape_handler.errors import VinegrapeError


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in its own process, without the settings of this environment."""
    return run_command(command(*map(str, arguments)), **variables)


def error_line(result: subprocess.CompletedProcess[str]) -> str:
    """Return the only line of output of a command that failed with an error of this project."""
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("vinegrape: ")
    return line


def error_text(*arguments: object, **variables: str) -> str:
    """Run a command in this process, expect an error of this project, and return its text."""
    environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("VINEGRAPE_")}
    result = CliRunner().invoke(vinegrape, list(map(str, arguments)), env={**environment, **variables})
    assert isinstance(result.exception, VinegrapeError), result.output
    assert result.output == ""
    text = str(result.exception)
    assert "\n" not in text
    return text
