"""The folder that one running server keeps everything in, and the end of those that a killed server left behind."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX, _LOCK = "vinegrape-", "lock"


@contextlib.contextmanager
def instance_folder() -> Iterator[Path]:
    """A new folder below the temporary folder, removed at the end; locked as long as its server lives."""
    remove_abandoned()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        folder = Path(name)
        with (folder / "unlocked").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            (folder / "unlocked").rename(folder / _LOCK)  # nobody ever sees a lock that is not held
            yield folder


def remove_abandoned() -> None:
    """Remove the folders of servers that were killed: a container's temporary folder outlives its restarts."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        with contextlib.suppress(OSError), lock.open() as file:  # held, or somebody else's
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
