"""The check that the packages of a command are installed."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import click


def require_packages(command: str, packages: Sequence[str], extras: str) -> None:
    """Check that all packages that a command imports are installed.

    Args:
        command: name of the command, for the message.
        packages: names as they are imported.
        extras: the extras of pyproject.toml that install them, separated by commas.

    Raises:
        ClickException: a package is missing.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise click.ClickException(
            f"{command} needs {', '.join(missing)}, which is not installed here. "
            f"Run: pip install -c constraints.txt -e '.[{extras}]'"
        )
