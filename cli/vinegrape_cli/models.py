"""`vinegrape models`: show and replace the model of a running server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from vinegrape_cli.setting_options import setting_options
from vinegrape_server.models.control import send_command


@click.group()
def models() -> None:
    """Show and replace the model of a server that runs on this machine, without a stop.

    Another version is loaded beside the one that answers. Once all its workers have passed their self-check, it
    answers, and the old one is unloaded when it has no requests left. If it cannot be loaded, the old one goes on.

    \b
    Examples:
        vinegrape models list
        vinegrape models swap new.mar
        vinegrape models rollback
    """


@models.command("list")
@setting_options("operations_port")
def list_models(config: Path | None, operations_port: int) -> None:
    """Show the version that answers, and the previous one, which `rollback` loads."""
    _run(operations_port, {"command": "list"})


@models.command()
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@setting_options("operations_port")
def swap(config: Path | None, operations_port: int, archive: Path) -> None:
    """Let the model of ARCHIVE answer instead of the one that answers now.

    After a restart, the server serves its --archive again.
    """
    _run(operations_port, {"command": "swap", "archive": str(archive.absolute())})


@models.command()
@setting_options("operations_port")
def rollback(config: Path | None, operations_port: int) -> None:
    """Let the previous version answer again."""
    _run(operations_port, {"command": "rollback"})


def _run(operations_port: int, command: Mapping[str, Any]) -> None:
    for answer in send_command(operations_port, command):
        if "step" in answer:
            click.echo(answer["step"], err=True)
        for version in answer.get("versions", ()):
            click.echo(f"{version['version']:14}{version['state']:10}{version['name']}")
