"""What of the Dockerfiles can drift from the code; that they build and work, `make images` shows."""

import dataclasses
import json
import re
import subprocess
import tomllib

import pytest

from tests.conftest import ROOT
from vinegrape_server import settings
from vinegrape_server.settings import ServeSettings

SERVE, TRAIN = "Dockerfile.serve", "Dockerfile.train"
BOTH = pytest.mark.parametrize("name", [SERVE, TRAIN])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions(name: str) -> list[tuple[str, str]]:
    """Each instruction with its arguments, on one line."""
    text = re.sub(r"^#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line)]


def arguments(name: str, instruction: str) -> list[str]:
    return [rest for word, rest in instructions(name) if word == instruction]


def environment(name: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in arguments(name, "ENV") for pair in rest.split())


@BOTH
def test_base_is_pinned_and_runs_the_project(name):
    bases = {re.match(r"\S+", rest)[0] for rest in arguments(name, "FROM")}
    stages = {rest.partition(" AS ")[2] for rest in arguments(name, "FROM")}
    (base,) = bases - stages
    version = re.fullmatch(r"python:(\d+)\.(\d+)-slim-bookworm", base)
    lowest = re.fullmatch(r">=(\d+)\.(\d+)", PROJECT["requires-python"])
    assert tuple(map(int, version.groups())) >= tuple(map(int, lowest.groups()))


@BOTH
def test_what_is_copied_is_committed_and_let_through(name):
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    let_through = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [rest.split()[:-1] for rest in arguments(name, "COPY") if "--from=" not in rest]
    for source in (word for words in copied for word in words if not word.startswith("--")):
        assert any(path == source or path.startswith(f"{source}/") for path in tracked), source
        assert source in let_through


@BOTH
def test_every_package_of_the_project_is_copied(name):
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-dir"]
    copied = {word for rest in arguments(name, "COPY") for word in rest.split()}
    # "" stands for the folder of vinegrape_handler and the entry file
    assert {path.partition("/")[0] for path in build.values()} <= copied


@BOTH
def test_nobody_is_root_and_no_shell_is_in_between(name):
    assert all(re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) for user in arguments(name, "USER"))
    last = [word for word, _ in instructions(name)]
    assert last.index("USER") > max(i for i, word in enumerate(last) if word in ("FROM", "RUN", "COPY"))
    assert json.loads(arguments(name, "ENTRYPOINT")[0])[0] == "vinegrape"


def test_serve_starts_and_checks_itself():
    assert json.loads(arguments(SERVE, "ENTRYPOINT")[0]) == ["vinegrape", "serve"]
    (check,) = arguments(SERVE, "HEALTHCHECK")
    assert json.loads(check.partition(" CMD ")[2]) == ["vinegrape", "ready"]


def test_exposed_ports_are_those_that_listen_on_every_address():
    default = ServeSettings.load({}, environment=environment(SERVE))
    outside = [str(port) for name, port in default.ports.items() if default.host_of(name) == "0.0.0.0"]
    assert sorted(arguments(SERVE, "EXPOSE")[0].split()) == sorted(outside)


@BOTH
def test_variables_are_settings(name):
    known = {f"VINEGRAPE_{setting.upper()}" for setting in settings.fields()}
    assert {variable for variable in environment(name) if variable.startswith("VINEGRAPE_")} <= known


def test_the_archive_lies_where_serve_looks_for_it():
    default = next(field.default for field in dataclasses.fields(ServeSettings) if field.name == "archive")
    (copied,) = [rest.split()[-2:] for rest in arguments(SERVE, "COPY") if ".mar" in rest]
    assert default == copied[0] == copied[1] + copied[0].rpartition("/")[2]


def test_what_make_tells_the_builder_is_asked_for():
    result = subprocess.run(["make", "-n", "images"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in (SERVE, TRAIN):
        given = set(re.findall(r"--build-arg (\w+)=", result.stdout))
        assert given
        assert given <= {rest.partition("=")[0] for rest in arguments(name, "ARG")}


@BOTH
def test_no_mode_of_a_file_becomes_that_of_its_folder(name):
    """Since Docker 28.1 `COPY --chmod` gives it to the folders that it makes, which nobody could enter then."""
    made = set(arguments(name, "WORKDIR"))
    for rest in arguments(name, "COPY"):
        if "--chmod=" in rest:
            assert f"/srv/{rest.split()[-1]}".rstrip("/") in made
