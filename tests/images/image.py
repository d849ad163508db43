"""The built images, run with what IMAGE_RUNNER names: `docker run`, or anything that takes its options."""

import os
import shlex
import subprocess
from pathlib import Path

RUNNER = shlex.split(os.environ.get("IMAGE_RUNNER", "docker run"))


def command(image: str, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
    """The command that runs an image; the host's network, so that any container can ask any other."""
    return [*RUNNER, "--rm", "--network", "host", *options, image, *arguments]


def run(image: str, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(image, *arguments, options=options), capture_output=True, text=True, check=False, timeout=250
    )


def program(image: str, name: str, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run another program of the image than the one that it starts with."""
    return run(image, *arguments, options=(*options, "--entrypoint", name))


def variables(**values: object) -> tuple[str, ...]:
    """Options that set variables of the container's environment."""
    return tuple(part for name, value in values.items() for part in ("-e", f"{name}={value}"))


def mounts(folder: Path, *names: str) -> tuple[str, ...]:
    """Options that mount new folders at /srv/NAME, and run the container as the user to whom they belong.

    Our own; where we are root, who must not train as root either, the image's.
    """
    user = os.getuid() or 10001
    options = ["--user", f"{user}:{user}"]
    for name in names:
        (folder / name).mkdir()
        os.chown(folder / name, user, -1)
        options += ["-v", f"{folder / name}:/srv/{name}"]
    return tuple(options)
