"""The Kubernetes manifests as kubectl renders them."""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

K8S = ROOT / "k8s"
CLOUD_RUN = K8S / "cloudrun" / "service.yaml"
FOLDERS = ("base", "overlays/cpu", "overlays/gpu")
# The components that a user adds to an overlay
COMPONENTS = ("load-balancer", "api-keys", "tls")

# The first Kubernetes in which preStop's `sleep` needs no feature gate. The tests use the kustomize built into kubectl.
MINIMUM_VERSION = (1, 30)
INSTALL = "https://kubernetes.io/docs/tasks/tools/#kubectl"

Manifest = dict[str, Any]


@dataclass
class Manifests:
    """The objects of one rendered kustomization."""

    objects: list[Manifest]

    def of_kind(self, kind: str) -> list[Manifest]:
        return [manifest for manifest in self.objects if manifest["kind"] == kind]

    def one(self, kind: str) -> Manifest:
        """The only object of this kind."""
        (manifest,) = self.of_kind(kind)
        return manifest

    def named(self, kind: str, name: str) -> Manifest:
        (manifest,) = [manifest for manifest in self.of_kind(kind) if manifest["metadata"]["name"] == name]
        return manifest

    @property
    def pod(self) -> Manifest:
        """The pod specification of the only Deployment."""
        return self.one("Deployment")["spec"]["template"]["spec"]

    @property
    def pod_labels(self) -> dict[str, str]:
        return self.one("Deployment")["spec"]["template"]["metadata"]["labels"]

    @property
    def server(self) -> Manifest:
        """The only container of the pod."""
        (server,) = self.pod["containers"]
        return server


def render(folder: Path) -> Manifests:
    """Render a kustomization; skip the test if there is no suitable kubectl."""
    return Manifests(list(yaml.safe_load_all(kustomize(folder))))


def kustomize(folder: Path) -> str:
    """What `kubectl kustomize` prints for a folder."""
    result = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def render_with(components: Sequence[str], folder: Path, overlay: str = "overlays/cpu") -> Manifests:
    """Render an overlay with components; the kustomization is written to `folder`."""

    def relative(path: str) -> str:  # kustomize allows no absolute paths
        return os.path.relpath(K8S / path, folder)

    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [relative(overlay)],
        "components": [relative(f"components/{name}") for name in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return render(folder)


@functools.cache
def kubectl() -> str:
    """The path of kubectl; skip the test if it is missing or too old."""
    path = shutil.which("kubectl")
    minimum = ".".join(map(str, MINIMUM_VERSION))
    if path is None:
        pytest.skip(f"kubectl is not installed; install version {minimum} or newer: {INSTALL}")
    output = subprocess.run([path, "version", "--client", "-o", "json"], capture_output=True, text=True).stdout
    version = re.search(r'"gitVersion": "v(\d+)\.(\d+)', output)
    if version is None or (int(version[1]), int(version[2])) < MINIMUM_VERSION:
        number = f"{version[1]}.{version[2]}" if version else "unknown"
        pytest.skip(f"The version of {path} is {number}; install version {minimum} or newer: {INSTALL}")
    return path


def ports(server: Manifest) -> dict[str, int]:
    """The ports of a container, by name."""
    return {port["name"]: port["containerPort"] for port in server["ports"]}


def environment(server: Manifest) -> dict[str, str]:
    """The variables of a container. As in the kubelet, `$(NAME)` refers only to variables defined before it."""
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


def variable(server: Manifest, name: str) -> Manifest:
    """The entry of one variable in a container's `env`."""
    (entry,) = [entry for entry in server["env"] if entry["name"] == name]
    return entry


def mebibytes(quantity: str) -> float:
    """A memory or storage quantity of Kubernetes, such as 3Gi or 512Mi."""
    number, unit = re.fullmatch(r"(\d+)(Gi|Mi)", quantity).groups()
    return int(number) * {"Gi": 1024, "Mi": 1}[unit]


def java_mebibytes(server: Manifest) -> int | None:
    """Java's largest heap plus its largest direct buffers; None if either has no limit in megabytes."""
    options = environment(server).get("JAVA_TOOL_OPTIONS", "")
    limits = re.findall(r"-(?:Xmx|XX:MaxDirectMemorySize=)(\d+)m\b", options)
    return sum(map(int, limits)) if len(limits) == 2 else None


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a selector, which may have only `matchLabels`, selects an object with these labels."""
    assert selector.keys() <= {"matchLabels"}, selector
    return selector.get("matchLabels", {}).items() <= labels.items()


def leaves(value: Any) -> Iterator[Any]:
    """Every key and every scalar value of a manifest."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value
