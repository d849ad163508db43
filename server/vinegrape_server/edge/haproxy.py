"""Find the HAProxy of this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from vinegrape_handler.errors import SettingError

_OLDEST = (2, 6)  # named defaults, `http-request wait-for-body` and log formats of serve_config/haproxy.cfg
_ADVICE = "Install HAProxy 2.6 or newer (on Debian: apt-get install haproxy), or serve without --edge."


def find_haproxy() -> Path:
    """Return the program `haproxy` on PATH.

    Raises:
        SettingError: it is not installed, does not run, or is older than 2.6.
    """
    path = shutil.which("haproxy")
    if path is None:
        raise SettingError(f"edge is on, but there is no haproxy on PATH. {_ADVICE}")
    try:
        text = subprocess.run([path, "-v"], capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise SettingError(f"edge is on, but {path} does not run: {error}. {_ADVICE}") from error
    found = re.search(r"version (\d+)\.(\d+)", text)
    if found is None or (int(found[1]), int(found[2])) < _OLDEST:
        raise SettingError(f"edge is on, but {path} is {text.splitlines()[0] if text else 'no HAProxy'!r}. {_ADVICE}")
    return Path(path)
