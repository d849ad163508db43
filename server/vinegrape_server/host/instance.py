"""The folder that one running server keeps everything in, and the end of those that a killed server left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX, _LOCK = "vinegrape-", ".vinegrape-serve.lock"


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
        with contextlib.suppress(OSError), _opened(lock) as file:
            if _is_ours(file):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where its server lives
                shutil.rmtree(lock.parent, ignore_errors=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A file descriptor; anybody may write to the temporary folder, so no link is followed and no pipe waited for."""
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield file
    finally:
        os.close(file)


def _is_ours(file: int) -> bool:
    status = os.fstat(file)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
