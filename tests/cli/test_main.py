"""The table of commands, and what a user sees: help, usage errors, one line per error."""

import click
import pytest
from click.testing import CliRunner

from tests.support.cli import error_line, run
from vinegrape_cli.lazy_group import LazyGroup
from vinegrape_cli.main import COMMANDS, main, vinegrape
from vinegrape_handler.errors import VinegrapeError


def all_commands(group: click.Group, path: str) -> dict[str, click.Command]:
    """The command and all its subcommands, by their full names."""
    commands: dict[str, click.Command] = {path: group}
    context = click.Context(group, info_name=path)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            commands |= all_commands(command, f"{path} {name}")
        else:
            commands[f"{path} {name}"] = command
    return commands


def test_every_command_of_the_table_exists():
    context = click.Context(vinegrape)
    assert vinegrape.list_commands(context) == list(COMMANDS)
    for name in COMMANDS:
        assert isinstance(vinegrape.get_command(context, name), click.Command), name


def test_the_help_has_one_line_per_command():
    text = CliRunner().invoke(vinegrape, ["--help"], terminal_width=80).output
    lines = text.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in lines] == list(COMMANDS)
    assert not any("..." in line for line in lines)


def test_no_help_shows_a_control_sequence():
    for name, command in all_commands(vinegrape, "vinegrape").items():
        text = command.get_help(click.Context(command))
        assert "\\b" not in text, name
        assert "\b" not in text, name


def test_examples_in_the_help_keep_their_lines():
    result = CliRunner().invoke(vinegrape, ["serve", "--help"])
    lines = [line.strip() for line in result.output.splitlines()]
    assert "vinegrape serve --rest-port 9080 --workers 4" in lines


def test_an_error_of_the_project_is_one_line_with_exit_code_1(monkeypatch, capsys):
    @click.command()
    def failing() -> None:
        raise VinegrapeError("workers is -1; it must be at least 0.")

    monkeypatch.setattr(LazyGroup, "get_command", lambda *_: failing)
    monkeypatch.setattr("sys.argv", ["vinegrape", "serve"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "vinegrape: workers is -1; it must be at least 0.\n"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["serve", "--rest-port", "http"], "Invalid value for '--rest-port': 'http' is not a valid integer"),
        (["serve", "--backend", "tflite"], "'tflite' is not one of 'auto', 'onnx_int8', 'onnx_fp32', 'torchscript'"),
        (["serve", "--rest-prot", "1"], "No such option"),
        (["serve", "model.mar"], "unexpected extra argument"),
        (["server"], "No such command 'server'"),
    ],
)
def test_wrong_usage_is_reported_with_exit_code_2(arguments, error):
    result = CliRunner().invoke(vinegrape, arguments)
    assert result.exit_code == 2
    assert error in result.output


def test_the_installed_command_shows_help_and_version():
    assert run("--version").stdout.startswith("vinegrape, version ")
    assert "vinegrape serve" in run("-h").stdout


def test_the_installed_command_reports_an_error_as_one_line(tmp_path):
    line = error_line(run("serve", "--archive", tmp_path / "none.mar"))
    assert line.startswith(f"vinegrape: There is no archive {tmp_path}/none.mar")
