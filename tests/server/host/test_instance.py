import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import program
from tests.support.server import clean_environment
from vinegrape_handler.errors import SettingError
from vinegrape_server.host.instance import LOCK_FILE, free_bytes, instance_folder, temporary_folder


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


# Folders that cannot be used


def refusal(**environment: str) -> str:
    with pytest.raises(SettingError) as raised:
        temporary_folder(environment)
    return str(raised.value)


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    assert refusal(TMPDIR=f"{tmp_path}/none") == (
        f"TMPDIR is {tmp_path}/none, which is not a folder. Set TMPDIR to another folder."
    )


def test_the_variables_are_read_as_pythons_tempfile_reads_them(tmp_path):
    assert temporary_folder({"TMPDIR": "", "TEMP": str(tmp_path), "TMP": "/none"}) == tmp_path


def test_a_folder_that_is_too_small_is_refused(temporary):
    expected = r"has \d+\.\d MB free; this server needs 1000000000\.0 MB for a copy of"
    with pytest.raises(SettingError, match=expected), instance_folder(required_bytes=10**15):
        pass
    assert not list(temporary.iterdir())


_REFUSED = """
import sys
from vinegrape_handler.errors import SettingError
from vinegrape_server.host.instance import instance_folder

try:
    with instance_folder(int(sys.argv[1])):
        print("accepted")
except SettingError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("size=12m", "accepted"),
        ("size=4m", "MB free; this server needs 8.0 MB for a copy of the archive"),
        ("size=12m,noexec", "mounted with the option noexec"),
        ("size=12m,ro", "Cannot write to the temporary folder"),
        ("nr_inodes=2", "No space left on device"),
    ],
)
def test_mounted_file_systems(tmp_path, options, expected):
    """Each is mounted in a namespace of its own, so that it ends with the process."""
    unshare = program("unshare", "util-linux")
    if os.geteuid() != 0:
        pytest.skip("Mounting a file system needs root; run the tests as root")
    script = f'mount -t tmpfs -o {options} none {tmp_path} && exec "$@"'
    command = [unshare, "--mount", "sh", "-c", script, "sh", sys.executable, "-c", _REFUSED, "8000000"]
    environment = clean_environment(TMPDIR=str(tmp_path))
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert expected in result.stdout


def test_the_free_space_of_a_folder(tmp_path):
    assert 0 < free_bytes(tmp_path) < 10**15
