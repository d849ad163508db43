import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vinegrape_server.host.instance import LOCK_FILE, instance_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Path:
    """A temporary folder for this test, also for child processes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


_SERVER = """
import sys
from vinegrape_server.host.instance import instance_folder

with instance_folder() as folder:
    (folder / "store").mkdir()
    print(folder, flush=True)
    sys.stdin.read()
"""


@contextmanager
def running_server() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that holds an instance folder until its standard input ends."""
    with subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_the_folder_is_removed_at_the_end(temporary):
    with instance_folder() as folder:
        (folder / "file").touch()
        assert folder.parent == temporary
    assert not folder.exists()


def test_two_servers_have_two_folders(temporary):
    with instance_folder() as first, instance_folder() as second:
        assert first != second
        assert first.exists()


def test_the_next_server_removes_the_folder_of_a_killed_one_and_not_of_a_running_one(temporary):
    with running_server() as (running, running_folder), running_server() as (killed, killed_folder):
        killed.kill()
        killed.wait()
        assert killed_folder.exists()
        with instance_folder() as folder:
            assert set(temporary.glob("vinegrape-*")) == {folder, running_folder}
        running.stdin.close()
        assert running.wait() == 0
    assert not list(temporary.iterdir())


def test_a_folder_without_a_lock_is_left_alone(temporary):
    (temporary / "vinegrape-notes").mkdir()
    (temporary / "vinegrape-notes" / "lock").touch()
    with instance_folder():
        pass
    assert (temporary / "vinegrape-notes" / "lock").exists()


def test_pipes_and_links_in_the_temporary_folder_are_left_alone(temporary):
    """Every user can write there. Opening a pipe would block, and a link could name any file."""
    for name in ("pipe", "link"):
        (temporary / f"vinegrape-{name}").mkdir()
    (temporary / "mine").touch()
    os.mkfifo(temporary / "vinegrape-pipe" / LOCK_FILE)
    (temporary / "vinegrape-link" / LOCK_FILE).symlink_to(temporary / "mine")
    with instance_folder():
        pass
    assert {path.name for path in temporary.iterdir()} == {"vinegrape-pipe", "vinegrape-link", "mine"}
