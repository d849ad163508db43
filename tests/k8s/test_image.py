"""The manifests agree with Dockerfile.serve and with the project's version."""

import tomllib

import pytest

from tests.conftest import ROOT
from tests.k8s.manifests import CLOUD_RUN, FOLDERS, environment
from tests.support.dockerfile import Dockerfile
from tests.support.serve_settings import from_environment

pytestmark = pytest.mark.tools  # kubectl renders the manifests

IMAGE = Dockerfile("Dockerfile.serve")


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_pod_runs_as_the_user_of_the_image(folder, rendered):
    context = rendered[folder].pod["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == IMAGE.one("USER")


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_server_listens_on_all_addresses_of_the_pod(folder, rendered):
    """The image sets the addresses, not the manifests. Probes and clients come from outside the pod."""
    variables = environment(rendered[folder].server)
    settings = from_environment({**IMAGE.environment, **variables})
    assert {settings.host_of(port) for port in ("edge_port", "operations_port")} == {"0.0.0.0"}


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_volume_of_the_image_is_mounted(folder, rendered):
    mounted = [mount["mountPath"] for mount in rendered[folder].server["volumeMounts"]]
    assert mounted == IMAGE.json("VOLUME")


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_manifests_keep_the_entry_point_of_the_image(folder, rendered):
    assert not {"command", "args"} & rendered[folder].server.keys()


def test_the_gpu_overlay_keeps_the_path_of_the_image(rendered):
    """The overlay adds GKE's driver to PATH and must repeat what the image and its base have there."""
    path = environment(rendered["overlays/gpu"].server)["PATH"].split(":")
    *folders, inherited = IMAGE.environment["PATH"].split(":")
    assert inherited == "$PATH"
    assert path[: len(folders)] == folders
    assert {"/usr/local/bin", "/usr/sbin", "/usr/bin", "/bin"} <= set(path)  # HAProxy is in /usr/sbin


def test_image_tags_are_the_version_of_the_project(rendered):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert {folder: rendered[folder].server["image"] for folder in FOLDERS} == {
        "base": f"vinegrape-serve:{version}",
        "overlays/cpu": f"vinegrape-serve:{version}",
        "overlays/gpu": f"vinegrape-serve:{version}-gpu",
    }
    assert f"image: vinegrape-serve:{version}\n" in CLOUD_RUN.read_text()


def test_only_the_gpu_overlay_requests_a_gpu_and_requires_it(rendered):
    gpus = {folder: rendered[folder].server["resources"]["limits"].get("nvidia.com/gpu") for folder in FOLDERS}
    assert gpus == {"base": None, "overlays/cpu": None, "overlays/gpu": "1"}
    spec, server = rendered["overlays/gpu"].pod, rendered["overlays/gpu"].server
    assert environment(server)["VINEGRAPE_DEVICE"] == "cuda"
    assert spec["nodeSelector"] == {
        "cloud.google.com/gke-accelerator": "nvidia-l4",
        "cloud.google.com/gke-gpu-driver-version": "latest",
    }
    assert spec["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
