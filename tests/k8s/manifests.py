"""The manifests as kubectl renders them, and what a test looks up in them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

K8S = ROOT / "k8s"
CLOUD_RUN = K8S / "cloudrun" / "service.yaml"
FOLDERS = ("base", "overlays/cpu", "overlays/gpu")

# The oldest Kubernetes that knows preStop's `sleep` without a feature gate; kubectl's kustomize comes with it
MINIMUM_VERSION = (1, 30)
INSTALL = "https://kubernetes.io/docs/tasks/tools/#kubectl"

Manifest = dict[str, Any]


def render(folder: Path) -> list[Manifest]:
    """The objects of a kustomization; the test is skipped without a kubectl that can render it."""
    result = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return list(yaml.safe_load_all(result.stdout))


def kubectl() -> str:
    path = shutil.which("kubectl")
    minimum = ".".join(map(str, MINIMUM_VERSION))
    if path is None:
        pytest.skip(f"kubectl is not installed; install version {minimum} or newer: {INSTALL}")
    answer = subprocess.run([path, "version", "--client", "-o", "json"], capture_output=True, text=True).stdout
    found = re.search(r'"gitVersion": "v(\d+)\.(\d+)', answer)
    if found is None or (int(found[1]), int(found[2])) < MINIMUM_VERSION:
        version = json.loads(answer)["clientVersion"]["gitVersion"] if found else "of an unknown version"
        pytest.skip(f"{path} is {version}; install version {minimum} or newer: {INSTALL}")
    return path


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def one(manifests: list[Manifest], kind: str) -> Manifest:
    (manifest,) = of_kind(manifests, kind)
    return manifest


def pod(manifests: list[Manifest]) -> Manifest:
    """The pod template of the one Deployment."""
    return one(manifests, "Deployment")["spec"]["template"]


def container(manifests: list[Manifest]) -> Manifest:
    (server,) = pod(manifests)["spec"]["containers"]
    return server


def ports(server: Manifest) -> dict[str, int]:
    """A container's ports by name."""
    return {port["name"]: port["containerPort"] for port in server["ports"]}


def environment(server: Manifest) -> dict[str, str]:
    """A container's variables, resolved as the kubelet does: in their order, `$(NAME)` only of those before."""
    values: dict[str, str] = {}
    for variable in server["env"]:
        if "valueFrom" in variable:
            group, resource = variable["valueFrom"]["resourceFieldRef"]["resource"].split(".")
            values[variable["name"]] = server["resources"][group][resource]
        else:
            values[variable["name"]] = re.sub(
                r"\$\((\w+)\)", lambda name: values.get(name[1], name[0]), variable["value"]
            )
    return values


def mebibytes(quantity: str) -> float:
    """A quantity of Kubernetes, such as 3Gi or 512Mi."""
    number, unit = re.fullmatch(r"(\d+)(Gi|Mi)", quantity).groups()
    return int(number) * {"Gi": 1024, "Mi": 1}[unit]


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a selector of `matchLabels` alone, or an empty one, selects what has these labels."""
    assert selector.keys() <= {"matchLabels"}, selector
    return selector.get("matchLabels", {}).items() <= labels.items()


def leaves(value: Any) -> Iterator[Any]:
    """Every single value in a manifest, and every key."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value
