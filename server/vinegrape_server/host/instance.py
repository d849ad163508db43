"""The temporary folder of one running server, and the removal of folders that killed servers left behind.

Java loads a native library from this folder, and all processes of the server have files and sockets in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from vinegrape_handler.errors import SettingError

_VARIABLES = ("TMPDIR", "TEMP", "TMP")  # as Python's tempfile reads them
_PREFIX, LOCK_FILE = "vinegrape-", ".vinegrape-serve.lock"
_HINT = "Set TMPDIR to another folder."


@contextlib.contextmanager
def instance_folder(required_bytes: int = 0) -> Iterator[Path]:
    """Create a folder inside the temporary folder, lock it while the block runs, and remove it afterwards.

    The folders of killed servers are removed first.

    Args:
        required_bytes: the free space that the server needs in the folder.

    Raises:
        SettingError: the temporary folder cannot be written, is too small, or no program may run from it.
    """
    parent = temporary_folder()
    remove_abandoned(parent)
    _check_space(parent, required_bytes)
    with contextlib.ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent)))
            file = stack.enter_context((folder / "unlocked").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX)
            # Rename the file only after it is locked: another server must never find an unlocked lock file
            (folder / "unlocked").rename(folder / LOCK_FILE)
        except OSError as error:
            raise SettingError(f"Cannot write to {parent}: {error.strerror}. {_HINT}") from error
        yield folder


def temporary_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Return the temporary folder that the environment names, or the system's.

    Python's tempfile takes another folder, without a word, if the one that the environment names cannot be used.

    Raises:
        SettingError: the folder does not exist, cannot be written, or no program may run from it.
    """
    name = next((name for name in _VARIABLES if environment.get(name)), None)
    try:
        folder = Path(environment[name]).absolute() if name else Path(tempfile.gettempdir())
        if not folder.is_dir():
            raise SettingError(f"{name} is {folder}, which is not a folder. {_HINT}")
        options = os.statvfs(folder).f_flag
    except OSError as error:
        raise SettingError(f"There is no temporary folder: {error}. {_HINT}") from error
    if options & os.ST_RDONLY or not os.access(folder, os.W_OK | os.X_OK):
        raise SettingError(f"Cannot write to the temporary folder {folder}. {_HINT}")
    if options & os.ST_NOEXEC:
        raise SettingError(
            f"The temporary folder {folder} is mounted with the option noexec, and Java must load a library from it. "
            f"{_HINT} With Docker, the option is: --tmpfs {folder}:exec"
        )
    return folder


def free_bytes(folder: Path) -> int:
    """Return the free space of a folder's file system that this user may use."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _check_space(folder: Path, required_bytes: int) -> None:
    free = free_bytes(folder)
    if free < required_bytes:
        raise SettingError(
            f"The temporary folder {folder} has {free / 1e6:.1f} MB free; this server needs {required_bytes / 1e6:.1f} "
            f"MB for a copy of the archive, its unpacked files, sockets and metrics. {_HINT}"
        )


def instance_folders(parent: Path) -> list[Path]:
    """Return the folders of servers in a temporary folder, those of killed servers too."""
    return [lock.parent for lock in parent.glob(f"{_PREFIX}*/{LOCK_FILE}")]


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of killed servers. They also remain when a container restarts."""
    for folder in instance_folders(parent):
        with contextlib.suppress(OSError), _opened(folder / LOCK_FILE) as file:
            if _is_our_file(file):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises OSError while its server runs
                shutil.rmtree(folder, ignore_errors=True)


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
