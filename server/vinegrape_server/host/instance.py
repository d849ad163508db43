"""The temporary folder of one running server, and the removal of folders that killed servers left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX, LOCK_FILE = "vinegrape-", ".vinegrape-serve.lock"


@contextlib.contextmanager
def instance_folder() -> Iterator[Path]:
    """Create a folder inside the temporary folder, lock it while the block runs, and remove it afterwards.

    The folders of killed servers are removed first.
    """
    remove_abandoned()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as name:
        folder = Path(name)
        with (folder / "unlocked").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            # Rename the file only after it is locked: another server must never find an unlocked lock file
            (folder / "unlocked").rename(folder / LOCK_FILE)
            yield folder


def remove_abandoned() -> None:
    """Remove the folders of killed servers. They also remain when a container restarts."""
    for lock in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{LOCK_FILE}"):
        with contextlib.suppress(OSError), _opened(lock) as file:
            if _is_our_file(file):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises OSError while its server runs
                shutil.rmtree(lock.parent, ignore_errors=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a file for reading and yield its file descriptor.

    It does not follow a link and does not wait for a pipe, because every user may write to the temporary folder.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield file
    finally:
        os.close(file)


def _is_our_file(file: int) -> bool:
    """Return whether a file descriptor is a regular file of this user."""
    status = os.fstat(file)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
