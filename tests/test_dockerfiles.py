"""The Dockerfiles agree with the code and with make; `make images` builds and runs them."""

import json
import re
import subprocess
import tomllib

import pytest

from tests.conftest import ROOT
from tests.support.dockerfile import Dockerfile
from tests.support.serve_settings import VARIABLES, from_environment
from vinegrape_server.settings import ServeSettings

SERVE, TRAIN = Dockerfile("Dockerfile.serve"), Dockerfile("Dockerfile.train")
BOTH = pytest.mark.parametrize("dockerfile", [SERVE, TRAIN], ids=["serve", "train"])
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@BOTH
def test_the_base_image_has_a_python_that_the_project_supports(dockerfile):
    stages = {arguments.partition(" AS ")[2] for arguments in dockerfile.all("FROM")}
    (base,) = {arguments.split()[0] for arguments in dockerfile.all("FROM")} - stages
    version = re.fullmatch(r"python:(\d+)\.(\d+)-slim-bookworm", base)
    lowest = re.fullmatch(r">=(\d+)\.(\d+)", PYPROJECT["project"]["requires-python"])
    assert tuple(map(int, version.groups())) >= tuple(map(int, lowest.groups()))


@BOTH
def test_copied_files_are_committed_and_in_the_build_context(dockerfile):
    tracked = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).splitlines()
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert dockerfile.copied <= allowed
    for source in dockerfile.copied:
        assert any(path == source or path.startswith(f"{source}/") for path in tracked), source


def test_the_training_image_has_every_package_and_the_serving_image_only_what_serves():
    packages = set(PYPROJECT["tool"]["setuptools"]["packages"]["find"]["where"])
    assert TRAIN.copied & packages == packages
    assert SERVE.copied & packages == packages - {"training", "loadtests"}


@BOTH
def test_links_in_copied_folders_point_to_what_is_copied(dockerfile):
    """The server's package contains serve_config as a link to the folder in the root."""
    folders = [ROOT / source for source in dockerfile.copied if (ROOT / source).is_dir()]
    links = [path for folder in folders for path in folder.rglob("*") if path.is_symlink()]
    assert links
    for link in links:
        assert str(link.resolve().relative_to(ROOT)) in dockerfile.copied, link


@BOTH
def test_the_user_is_not_root_and_no_shell_starts_the_program(dockerfile):
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", dockerfile.one("USER"))
    words = [word for word, _ in dockerfile.instructions]
    assert words.index("USER") > max(i for i, word in enumerate(words) if word in ("FROM", "RUN", "COPY"))
    assert dockerfile.json("ENTRYPOINT")[0] == "vinegrape"


def test_the_serving_image_starts_the_server_and_checks_its_health():
    assert SERVE.json("ENTRYPOINT") == ["vinegrape", "serve"]
    assert json.loads(SERVE.one("HEALTHCHECK").partition(" CMD ")[2]) == ["vinegrape", "ready"]


def test_the_serving_image_starts_the_edge_and_contains_it():
    assert from_environment(SERVE.environment).edge
    (install,) = [arguments for arguments in SERVE.all("RUN") if "apt-get install" in arguments]
    assert "haproxy" in install.split()
    assert "rm -rf /var/lib/apt/lists/*" in install  # a later RUN would not make the image smaller


def test_exposed_ports_are_those_that_listen_on_all_addresses():
    defaults = from_environment(SERVE.environment)
    reachable = {str(port) for name, port in defaults.ports.items() if defaults.host_of(name) == "0.0.0.0"}
    assert set(SERVE.one("EXPOSE").split()) == reachable == {"8000", "8083"}


@BOTH
def test_variables_are_known_settings(dockerfile):
    assert {name for name in dockerfile.environment if name.startswith("VINEGRAPE_")} <= VARIABLES


def test_the_archive_is_where_the_server_looks_for_it():
    (copy,) = [arguments for arguments in SERVE.all("COPY") if ".mar" in arguments]
    source, folder = copy.split()[-2:]
    archive = ServeSettings().archive
    assert (source, folder) == (archive, archive.rpartition("/")[0] + "/")
    assert SERVE.all("WORKDIR")[-1] == "/srv"


@BOTH
def test_build_arguments_of_make_are_declared(dockerfile):
    result = subprocess.run(["make", "-n", "images"], cwd=ROOT, capture_output=True, text=True, check=True)
    passed = set(re.findall(r"--build-arg (\w+)=", result.stdout))
    assert passed
    assert passed <= {arguments.partition("=")[0] for arguments in dockerfile.all("ARG")}


@BOTH
def test_a_folder_exists_before_a_file_is_copied_into_it_with_a_mode(dockerfile):
    """Since Docker 28.1 `COPY --chmod` gives the mode also to folders that it creates: 0444 makes them unreadable."""
    for arguments in dockerfile.all("COPY"):
        if "--chmod=" in arguments:
            assert f"/srv/{arguments.split()[-1]}".rstrip("/") in dockerfile.all("WORKDIR")
