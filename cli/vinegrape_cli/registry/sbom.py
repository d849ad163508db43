"""The software bill of materials (SBOM) of an archive, as CycloneDX JSON (https://cyclonedx.org)."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from importlib import metadata

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from vinegrape_handler.weights import WEIGHTS_FILES, Backend
from vinegrape_server.archive_info import ArchiveInfo

_PROJECT = "vinegrape"  # the distribution whose requirements are what serving needs
_TORCHSCRIPT: Backend = "torchscript"  # its extra that serves this backend


def make_sbom(info: ArchiveInfo) -> bytes:
    """List what an archive contains, and the packages that serve it.

    The components are the archive's weights (machine-learning models), its other files (the handler's code, metadata
    and self-check images), and the Python packages that `vinegrape serve` needs, in the versions that are installed
    here. torch is optional, because only the TorchScript weights need it. Files have their SHA-256 digests.

    Args:
        info: the archive.
    """
    name, version = info.metadata.name, info.metadata.version
    root = Component(
        type=ComponentType.APPLICATION,
        name=info.path.name,
        version=version,
        bom_ref=info.path.name,
        description=f"TorchServe archive of the model {name}",
        hashes=[_sha256(info.path.read_bytes())],
    )
    bom = Bom()
    bom.metadata.component = root
    contents = list(_contents(info))
    packages = _packages(optional=WEIGHTS_FILES[_TORCHSCRIPT] in {component.name for component in contents})
    bom.components.update(contents, packages)
    bom.register_dependency(root, [*contents, *packages])
    return (JsonV1Dot6(bom).output_as_string(indent=2) + "\n").encode()


def _contents(info: ArchiveInfo) -> Iterator[Component]:
    """Yield the files in an archive."""
    weights = set(WEIGHTS_FILES.values())
    with zipfile.ZipFile(info.path) as archive:
        for file in sorted(each.filename for each in archive.infolist() if not each.is_dir()):
            is_model = file in weights
            yield Component(
                type=ComponentType.MACHINE_LEARNING_MODEL if is_model else ComponentType.FILE,
                name=file,
                version=info.metadata.version,
                bom_ref=f"{info.path.name}/{file}",
                description=f"Weights and graph of {info.metadata.architecture}" if is_model else None,
                hashes=[_sha256(archive.read(file))],
            )


def _packages(*, optional: bool) -> list[Component]:
    """Return the packages that serving needs, and with `optional` those that TorchScript needs in addition."""
    required = _installed(_PROJECT)
    components = [_package(name, version, ComponentScope.REQUIRED) for name, version in required.items()]
    if optional:
        more = _installed(f"{_PROJECT}[{_TORCHSCRIPT}]")
        components += [
            _package(name, version, ComponentScope.OPTIONAL) for name, version in more.items() if name not in required
        ]
    return components


def _installed(package: str) -> dict[str, str]:
    """Return the installed versions of a package and of all packages that it requires, by canonical name.

    Args:
        package: name, with extras in brackets.
    """
    waiting, followed = [Requirement(package)], set()
    versions: dict[str, str] = {}
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in followed:
            continue
        followed.add((name, extras))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        versions[name] = distribution.version
        for needed in map(Requirement, distribution.requires or ()):
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append(needed)
    return dict(sorted(versions.items()))


def _package(name: str, version: str, scope: ComponentScope) -> Component:
    url = PackageURL("pypi", name=name, version=version)
    return Component(
        type=ComponentType.LIBRARY, name=name, version=version, bom_ref=url.to_string(), purl=url, scope=scope
    )


def _sha256(content: bytes) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(content).hexdigest())
