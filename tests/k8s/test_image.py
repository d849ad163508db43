"""What the manifests take for granted of Dockerfile.serve and of the project."""

import re
import tomllib

import pytest
import yaml

from tests.conftest import ROOT
from tests.k8s.manifests import CLOUD_RUN, FOLDERS, container, environment, pod, ports
from vinegrape_server.settings import ServeSettings

DOCKERFILE = ROOT / "Dockerfile.serve"


@pytest.fixture(scope="module")
def dockerfile() -> str:
    """Its instructions, each on one line."""
    return re.sub(r"\\\n\s*", "", DOCKERFILE.read_text())


def only(pattern: str, text: str) -> str:
    (found,) = re.findall(pattern, text, re.MULTILINE)
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_pod_runs_as_the_image_does(folder, rendered, dockerfile):
    user, group = only(r"^USER (\d+):(\d+)$", dockerfile)
    context = pod(rendered[folder])["spec"]["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_image_exposes_the_ports_and_nothing_else(folder, rendered, dockerfile):
    exposed = only(r"^EXPOSE (.+)$", dockerfile).split()
    assert sorted(map(str, ports(container(rendered[folder])).values())) == sorted(exposed)


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_image_listens_where_the_pod_is_reached(folder, rendered, dockerfile):
    """The manifests leave these to the image: probes and clients come from outside the pod."""
    image = dict(re.findall(r"(VINEGRAPE_\w+)=(\S+)", dockerfile))
    settings = ServeSettings.load({}, environment={**image, **environment(container(rendered[folder]))})
    assert {settings.host_of(port) for port in ("rest_port", "grpc_port", "operations_port")} == {"0.0.0.0"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_the_image_lets_be_written_is_what_is_mounted(folder, rendered, dockerfile):
    mounted = [mount["mountPath"] for mount in container(rendered[folder])["volumeMounts"]]
    assert mounted == yaml.safe_load(only(r"^VOLUME (.+)$", dockerfile))


def test_the_image_starts_without_a_shell_and_the_manifests_leave_it_so(rendered, dockerfile):
    assert yaml.safe_load(only(r"^ENTRYPOINT (.+)$", dockerfile)) == ["vinegrape", "serve"]
    assert all("command" not in container(rendered[folder]) for folder in FOLDERS)


def test_a_gpu_pod_finds_what_the_image_has_on_its_path(rendered, dockerfile):
    """GKE's driver is added to the path; what stood there must stay."""
    path = environment(container(rendered["overlays/gpu"]))["PATH"].split(":")
    own = only(r"\bPATH=(\S+)", dockerfile).split(":")
    assert own[-1] == "$PATH"
    assert path[: len(own) - 1] == own[:-1]
    assert {"/usr/local/bin", "/usr/bin", "/bin"} <= set(path)


def test_tags_are_the_projects_version(rendered):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    tags = {folder: container(rendered[folder])["image"] for folder in FOLDERS}
    assert tags == {
        "base": f"vinegrape-serve:{version}",
        "overlays/cpu": f"vinegrape-serve:{version}",
        "overlays/gpu": f"vinegrape-serve:{version}-gpu",
    }
    assert f"image: vinegrape-serve:{version}\n" in CLOUD_RUN.read_text()


def test_only_the_gpu_overlay_asks_for_a_gpu_and_insists_on_it(rendered):
    requested = {folder: container(rendered[folder])["resources"]["limits"].get("nvidia.com/gpu") for folder in FOLDERS}
    assert requested == {"base": None, "overlays/cpu": None, "overlays/gpu": "1"}
    spec, server = pod(rendered["overlays/gpu"])["spec"], container(rendered["overlays/gpu"])
    assert environment(server)["VINEGRAPE_DEVICE"] == "cuda"
    assert spec["nodeSelector"] == {
        "cloud.google.com/gke-accelerator": "nvidia-l4",
        "cloud.google.com/gke-gpu-driver-version": "latest",
    }
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
