"""README's commands and code blocks are what a stranger copies: each is run, or held against what exists."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from tests.conftest import ROOT
from tests.support.server import Live
from vinegrape_cli.main import vinegrape
from vinegrape_server.settings import ServeSettings

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line.split("  #")[0].strip() for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
PORTS = {"rest_port": "127.0.0.1:8080", "grpc_port": "127.0.0.1:7070", "operations_port": "127.0.0.1:8083"}


def with_ports(text: str, server: Live) -> str:
    """README's text for a server on other ports."""
    for name, address in PORTS.items():
        text = text.replace(address, f"127.0.0.1:{server.ports[name]}")
    return text


def run(command: list[str]) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (text.strip(), BLOCKS[index + 1][1])
        for index, (kind, text) in enumerate(BLOCKS[:-1])
        if kind == "sh" and BLOCKS[index + 1][0] == "json"
    ],
)
def test_the_server_answers_what_readme_shows(command, shown, server):
    answer, expected = json.loads(run(shlex.split(with_ports(command, server)))), json.loads(shown)
    if "error" in expected:
        assert answer == expected
        return
    # the archive under test has the code as it is now, and so perhaps another version; processors round differently
    assert answer.keys() == expected.keys()
    assert (answer["label"], answer["model"]["name"]) == (expected["label"], expected["model"]["name"])
    assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=0.02)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("curl") and "/predictions/" in c])
def test_every_question_gets_json(command, server):
    json.loads(run(shlex.split(with_ports(command, server))))


def test_the_metrics_that_are_listed_are_there(server):
    (command,) = (command for command in COMMANDS if command.endswith("/metrics"))
    said = run(shlex.split(with_ports(command, server)))
    listed = re.findall(r"`(vinegrape_\w+?)(?:\{(.*?)\})?`", README)
    assert len(listed) > 10
    for name, labels in listed:
        (line,) = [line for line in said.splitlines() if line.startswith(f"# TYPE {name} ")]
        sample = next(row for row in said.splitlines() if row.startswith(name))
        assert all(f'{label}="' in sample for label in filter(None, labels.split(","))), line


def test_ports_and_the_containers_are_as_they_are_said():
    default = ServeSettings()
    assert {name: f"127.0.0.1:{default.ports[name]}" for name in PORTS} == PORTS
    (docker,) = (command for command in COMMANDS if "vinegrape-serve:" in command)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert docker.endswith(f"vinegrape-serve:{version}")
    published = set(re.findall(r"-p (?:127\.0\.0\.1:)?(\d+):\1 ", docker))
    assert published == {address.partition(":")[2] for address in PORTS.values()}


def test_the_grpc_example_prints_the_same_answer_as_rest(server, leaf):
    (example,) = (text for kind, text in BLOCKS if kind == "python")
    printed = run([sys.executable, "-c", with_ports(example, server)])
    assert json.loads(printed) == server.post(leaf).json()


def test_every_make_target_exists():
    targets = {command.split()[1] for command in COMMANDS if command.startswith("make ")}
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"serve", "test", "model", "images", "loadtest"} <= targets <= rules


def test_make_help_lists_every_target():
    helped = run(["make", "help"])
    for target in ("serve", "test", "lint", "model", "images", "loadtest", "clean"):
        assert f"make {target}" in helped


@pytest.mark.parametrize("command", [command for command in COMMANDS if "bin/vinegrape" in command])
def test_every_command_line_is_understood(command):
    """The words after `vinegrape` parse; what they do is tested elsewhere."""
    words = shlex.split(command)[1:]
    group: click.Command = vinegrape
    while isinstance(group, click.Group):
        group = group.get_command(click.Context(group), words.pop(0))
    group.make_context(group.name, words)


def test_the_commands_of_training_your_own_make_an_archive(tmp_path):
    """README's four steps without a data set, at a tenth of their size."""
    steps = [c for c in COMMANDS if re.match(r"\.venv/bin/vinegrape (data draw|train|export|archive)", c)]
    assert len(steps) == 4
    for step in steps:
        smaller = step.replace("--images-per-class 40", "--images-per-class 10")
        words = shlex.split(smaller.replace("/tmp/", f"{tmp_path}/"))
        extra = {"train": ["trainer.max_epochs=8"], "export": ["--min-int8-agreement", "0.8"]}.get(words[1], [])
        run([str(Path(sys.executable).with_name("vinegrape")), *words[1:], *extra])
    assert (tmp_path / "store" / "vinegrape.mar").is_file()
    assert (tmp_path / "store" / "MODEL_CARD.md").is_file()


def test_readme_names_only_files_that_exist():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
