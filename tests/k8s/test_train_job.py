"""The Job that trains on several machines: its schema, its rights, and what `vinegrape train` reads from it."""

import copy
import shlex
import tomllib

import kubernetes_validate
import pytest

from tests.conftest import ROOT
from tests.k8s.manifests import K8S, Manifest, Manifests, mebibytes, render
from tests.k8s.schemas import NEWEST_KUBERNETES, OLDEST_KUBERNETES
from tests.support.dockerfile import Dockerfile
from tests.support.pages import commands
from tests.test_deployment_commands import kubectl_faults
from vinegrape_training.fit.config import compose_config
from vinegrape_training.fit.machines import Machine, find_machine

pytestmark = pytest.mark.tools  # kubectl renders the manifests

IMAGE = Dockerfile("Dockerfile.train")


@pytest.fixture(scope="module")
def rendered() -> Manifests:
    return render(K8S / "train")


@pytest.fixture
def pod(rendered) -> Manifest:
    return rendered.one("Job")["spec"]["template"]["spec"]


@pytest.fixture
def container(pod) -> Manifest:
    (container,) = pod["containers"]
    return container


def variables(container: Manifest) -> dict[str, str]:
    """The variables of the container that have a value in the manifest."""
    return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, NEWEST_KUBERNETES])
def test_every_object_fits_its_schema(rendered, version):
    assert {manifest["kind"] for manifest in rendered.objects} == {
        "Namespace", "ServiceAccount", "PersistentVolumeClaim", "Service", "NetworkPolicy", "Job"
    }  # fmt: skip
    for manifest in rendered.objects:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_of_the_job_is_an_error(rendered):
    job = copy.deepcopy(rendered.one("Job"))
    job["spec"]["completionmode"] = "Indexed"
    with pytest.raises(kubernetes_validate.ValidationError, match="completionmode"):
        kubernetes_validate.validate(job, NEWEST_KUBERNETES, strict=True)


def test_training_finds_the_machines_from_what_the_pods_get(rendered, container):
    """Kubernetes sets the index, and gives pod 0 of an Indexed Job the host name JOB-0 in the Service's domain."""
    spec = rendered.one("Job")["spec"]
    assert spec["completionMode"] == "Indexed"
    program, *overrides = container["args"]
    assert (program, IMAGE.json("ENTRYPOINT")) == ("train", ["vinegrape"])
    cfg = compose_config(overrides)
    assert spec["completions"] == spec["parallelism"] == cfg.trainer.num_nodes == 2
    first = f"{rendered.one('Job')['metadata']['name']}-0.{rendered.one('Service')['metadata']['name']}"
    for index in (0, 1):
        machine = find_machine(
            cfg.trainer.num_nodes, cfg.trainer.devices, {**variables(container), "JOB_COMPLETION_INDEX": str(index)}
        )
        assert machine == Machine(2, index, 0, first, 29400)


def test_the_service_names_the_pods(rendered, pod, container):
    service, labels = rendered.one("Service"), rendered.one("Job")["spec"]["template"]["metadata"]["labels"]
    assert pod["subdomain"] == service["metadata"]["name"]
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert service["spec"]["selector"].items() <= labels.items()
    ports = [port["containerPort"] for port in container["ports"]]
    assert [port["port"] for port in service["spec"]["ports"]] == ports == [int(variables(container)["MASTER_PORT"])]


def test_the_pods_reach_each_other_and_the_name_server_only(rendered):
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in rendered.of_kind("NetworkPolicy")}
    assert policies["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    pods = {"podSelector": {"matchLabels": rendered.one("Service")["spec"]["selector"]}}
    assert {"podSelector": policies["machines"]["podSelector"]} == pods
    assert policies["machines"]["ingress"] == [{"from": [pods]}]
    to_pods, to_names = policies["machines"]["egress"]
    assert to_pods == {"to": [pods]}
    assert {port["port"] for port in to_names["ports"]} == {53}


def test_the_pods_have_no_rights(rendered, pod, container):
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == IMAGE.one("USER")
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    account = rendered.one("ServiceAccount")
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert pod["automountServiceAccountToken"] is account["automountServiceAccountToken"] is False
    label = rendered.one("Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert label == "restricted"


def test_folders_of_the_settings_are_mounted(pod, container):
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    cfg = compose_config(container["args"][1:])
    assert mounts["/srv/runs"].get("readOnly") is None
    assert mounts["/srv/data"]["readOnly"] is True
    assert cfg.run_dir.startswith("/srv/runs/")
    assert cfg.data.dir.startswith("/srv/data/")
    assert cfg.weights.startswith("/srv/data/")
    assert {mount["name"] for mount in mounts.values()} == {volume["name"] for volume in pod["volumes"]}


def test_memory_is_limited(container, pod):
    resources = container["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"]
    assert "cpu" not in resources["limits"]
    sizes = [mebibytes(volume["emptyDir"]["sizeLimit"]) for volume in pod["volumes"] if "emptyDir" in volume]
    assert sum(sizes) < mebibytes(resources["limits"]["memory"])


def test_the_image_is_that_of_this_version(container):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert container["image"] == f"vinegrape-train:{version}"


def test_labels_and_namespaces_are_the_same_everywhere(rendered):
    for manifest in rendered.objects:
        assert manifest["metadata"]["labels"]["app.kubernetes.io/name"] == "vinegrape-train"
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == "vinegrape-train"


def test_the_documented_commands_are_valid():
    calls = [["kubectl", *shlex.split(line)] for line in commands(ROOT / "docs" / "training.md", "kubectl")]
    assert len(calls) >= 3
    assert kubectl_faults(calls) == {}
    assert {call[call.index("-k") + 1] for call in calls if "-k" in call} == {"k8s/train"}
