"""The SBOM of an archive, by the schema of CycloneDX that its library carries."""

import hashlib
import json
import re
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT
from tests.support import archives
from vinegrape_cli.registry.sbom import make_sbom
from vinegrape_server.archive_info import ArchiveInfo

COMMITTED = ROOT / "model_store" / "vinegrape.mar"
DEPENDENCIES = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]


def sbom_of(archive: Path) -> bytes:
    return make_sbom(ArchiveInfo.read(archive))


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    values: dict[str, Any] = json.loads(sbom_of(COMMITTED))
    return values


def components(document: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in document["components"] if each["type"] == kind}


def test_it_is_valid_cyclonedx():
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    text = sbom_of(COMMITTED).decode()
    assert validator.validate_str(text) is None
    assert validator.validate_str(text.replace("machine-learning-model", "network")) is not None


def test_it_describes_the_archive(document):
    archive = document["metadata"]["component"]
    digest = hashlib.sha256(COMMITTED.read_bytes()).hexdigest()
    assert archive["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert archive["version"] == ArchiveInfo.read(COMMITTED).metadata.version


def test_the_weights_are_models_and_all_other_files_of_the_archive_are_files(document):
    with zipfile.ZipFile(COMMITTED) as archive:
        contents = {name: hashlib.sha256(archive.read(name)).hexdigest() for name in archive.namelist()}
    models, others = components(document, "machine-learning-model"), components(document, "file")
    assert set(models) == {"model.int8.onnx", "model.torchscript.pt"}
    assert "vinegrape_handler/handler.py" in others
    digests = {name: each["hashes"][0]["content"] for name, each in (models | others).items()}
    assert digests == contents


def test_what_serving_needs_is_listed_with_its_installed_version(document):
    libraries = components(document, "library")
    required = {name for name, each in libraries.items() if each["scope"] == "required"}
    direct = {canonicalize_name(Requirement(line).name) for line in DEPENDENCIES}
    assert {"vinegrape", *direct} <= required
    assert "httpcore" in required  # a requirement of httpx
    assert required & {"torch", "timm", "pytest", "cyclonedx-python-lib"} == set()
    for name in required:
        assert libraries[name]["version"] == version(name)
        assert re.fullmatch(rf"pkg:pypi/{re.escape(name)}@.+", libraries[name]["purl"])


def test_torch_is_optional_and_listed_only_for_torchscript(document, tmp_path):
    assert components(document, "library")["torch"]["scope"] == "optional"
    path = archives.write(tmp_path / "vinegrape.mar", backends=["onnx_int8"])
    assert "torch" not in components(json.loads(sbom_of(path)), "library")


def test_the_archive_depends_on_every_component(document):
    (of_archive,) = [each for each in document["dependencies"] if each["ref"] == "vinegrape.mar"]
    assert set(of_archive["dependsOn"]) == {each["bom-ref"] for each in document["components"]}
