import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from vinegrape_server.host.instance import _LOCK as LOCK
from vinegrape_server.host.instance import instance_folder


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch) -> Path:
    """A temporary folder of our own, for children too."""
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


def start() -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, Path(process.stdout.readline().strip())


def test_a_folder_is_gone_after_its_server(temporary):
    with instance_folder() as folder:
        (folder / "file").touch()
        assert folder.parent == temporary
    assert not folder.exists()


def test_two_servers_have_two_folders(temporary):
    with instance_folder() as first, instance_folder() as second:
        assert first != second
        assert first.exists()


def test_a_killed_servers_folder_is_removed_by_the_next_and_a_living_ones_is_not(temporary):
    with start()[0] as living, start()[0] as killed:
        folders = set(temporary.glob("vinegrape-*"))
        killed.kill()
        killed.wait()
        assert set(temporary.glob("vinegrape-*")) == folders
        with instance_folder() as own:
            (left,) = set(temporary.glob("vinegrape-*")) - {own}
        living.stdin.close()
        assert living.wait() == 0
    assert left in folders
    assert not list(temporary.iterdir())


def test_what_is_not_a_servers_is_left_alone(temporary):
    (temporary / "vinegrape-notes").mkdir()
    (temporary / "vinegrape-notes" / "lock").touch()
    with instance_folder():
        pass
    assert (temporary / "vinegrape-notes" / "lock").exists()


def test_traps_in_a_folder_that_everybody_may_write_to(temporary):
    """A pipe would be waited for, a link followed; neither is a lock of ours."""
    for name in ("pipe", "link"):
        (temporary / f"vinegrape-{name}").mkdir()
    (temporary / "mine").touch()
    os.mkfifo(temporary / "vinegrape-pipe" / LOCK)
    (temporary / "vinegrape-link" / LOCK).symlink_to(temporary / "mine")
    with instance_folder():
        pass
    assert {path.name for path in temporary.iterdir()} == {"vinegrape-pipe", "vinegrape-link", "mine"}
