"""Run the built images with the command in IMAGE_RUNNER: `docker run`, or a command that takes the same options."""

import os
import shlex
import subprocess
from pathlib import Path

RUNNER = shlex.split(os.environ.get("IMAGE_RUNNER", "docker run"))


def command(image: str, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
    """The command that runs an image, in the host's network: containers can then connect to each other."""
    return [*RUNNER, "--rm", "--network", "host", *options, image, *arguments]


def run(image: str, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run an image until it exits."""
    return subprocess.run(
        command(image, *arguments, options=options), capture_output=True, text=True, check=False, timeout=250
    )


def program(image: str, name: str, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run a program of the image instead of its entry point."""
    return run(image, *arguments, options=(*options, "--entrypoint", name))


def variables(**values: object) -> tuple[str, ...]:
    """Options that set environment variables of the container."""
    return tuple(part for name, value in values.items() for part in ("-e", f"{name}={value}"))


def mounts(folder: Path, *names: str) -> tuple[str, ...]:
    """Create folders, and return options that mount them at /srv/NAME and run the container as their owner.

    The owner is the current user. For root it is the user of the image, because training must work without root.
    """
    user = os.getuid() or 10001
    options = ["--user", f"{user}:{user}"]
    for name in names:
        (folder / name).mkdir()
        os.chown(folder / name, user, -1)
        options += ["-v", f"{folder / name}:/srv/{name}"]
    return tuple(options)
