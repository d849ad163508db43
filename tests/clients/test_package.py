"""`pip install ./clients` works without the rest of the project."""

import email
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of clients/: a build writes into the folder."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "clients", folder / "clients", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, folder / "clients"]
    subprocess.run(command, check=True, timeout=120)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_its_types(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        fields = email.message_from_bytes(archive.read(metadata))
    sources = (ROOT / "clients" / "vinegrape_client").glob("*.*")
    assert names == {f"vinegrape_client/{path.name}" for path in sources}
    assert (fields["Name"], fields["Requires-Python"]) == ("vinegrape-client", ">=3.11")
    required = [requirement.partition(">")[0] for requirement in fields.get_all("Requires-Dist")]
    assert sorted(required) == ["grpcio", "httpx", "protobuf"]


def test_it_works_in_an_environment_without_the_project(wheel, tmp_path):
    """The environment has the packages of this one, but none of ours: it has no .pth files and no import hooks."""
    venv.create(tmp_path / "environment", with_pip=False)
    (packages,) = (tmp_path / "environment" / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    (packages / "others.pth").write_text(str(Path(httpx.__file__).parents[1]))
    code = (
        "import importlib.util, sys, vinegrape_client, vinegrape_client.grpc_calls\n"
        "with vinegrape_client.Client('grpc://127.0.0.1:1') as client: assert not client.ready()\n"
        "print(vinegrape_client.__file__)\n"
        "print([name for name in ('numpy', 'PIL', 'ts', 'torch', 'vinegrape_handler') if name in sys.modules])"
    )
    python = tmp_path / "environment" / "bin" / "python"
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [f"{packages}/vinegrape_client/__init__.py", "[]"]
