"""Run the command `vinegrape`."""

import os
import subprocess

from click.testing import CliRunner

from tests.support.server import command
from vinegrape_cli.main import vinegrape
from vinegrape_handler.errors import VinegrapeError


def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command in a process of its own, without the settings of this environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VINEGRAPE_")}
    return subprocess.run(
        command(*map(str, arguments)), capture_output=True, text=True, env={**environment, **variables}, timeout=60
    )


def error_line(result: subprocess.CompletedProcess[str]) -> str:
    """The only line of output of a command that failed with an error of this project."""
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("vinegrape: ")
    return line


def error_text(*arguments: object, **variables: str) -> str:
    """Run a command in this process; return the text of the error of this project that it ends with."""
    environment: dict[str, str | None] = {name: None for name in os.environ if name.startswith("VINEGRAPE_")}
    result = CliRunner().invoke(vinegrape, list(map(str, arguments)), env={**environment, **variables})
    assert isinstance(result.exception, VinegrapeError), result.output
    assert result.output == ""
    text = str(result.exception)
    assert "\n" not in text
    return text
