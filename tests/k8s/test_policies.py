"""Every kustomization follows every policy, and each policy finds manifests that break it."""

import copy

import pytest

from tests.k8s import policies
from tests.k8s.manifests import FOLDERS, environment, variable
from tests.k8s.policies import POLICIES

pytestmark = pytest.mark.tools  # kubectl renders the manifests


@pytest.mark.parametrize("folder", [*FOLDERS, "components"])
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
def test_a_kustomization_follows_a_policy(policy, folder, rendered):
    assert list(policy(rendered[folder])) == []


def port(manifests):
    """The only port of the Service."""
    (entry,) = manifests.one("Service")["spec"]["ports"]
    return entry


def ingress(manifests, policy):
    """The only ingress rule of a network policy."""
    (rule,) = manifests.named("NetworkPolicy", policy)["spec"]["ingress"]
    return rule


def security(manifests):
    return manifests.pod["securityContext"]


def resources(manifests, group):
    return manifests.server["resources"][group]


def add_variable(manifests, name, value):
    manifests.server["env"].append({"name": name, "value": value})


def named(entries, name):
    """The only entry of a list with this name."""
    (entry,) = [entry for entry in entries if entry["name"] == name]
    return entry


def tmp(manifests):
    """The volume that is mounted at /tmp."""
    return named(manifests.pod["volumes"], "tmp")


def remove_variable(manifests, name):
    manifests.server["env"].remove(variable(manifests.server, name))


GPU = {"nvidia.com/gpu": "1"}
METRICS_PORT = {"name": "metrics", "port": 8083, "targetPort": "operations"}
TORCHSERVE_PORT = {"name": "torchserve", "containerPort": 8080}

# For each policy: changes that break it, each with a part of the message
BROKEN = {
    policies.pods_do_not_run_as_root: [
        (lambda m: security(m).update(runAsNonRoot=False), "runAsNonRoot"),
        (lambda m: security(m).update(runAsUser=0), "runAsUser or runAsGroup is 0"),
        (lambda m: m.server["securityContext"].update(runAsUser=0), "overrides"),
    ],
    policies.pods_are_restricted: [
        (lambda m: security(m).pop("seccompProfile"), "seccompProfile"),
        (lambda m: m.server.pop("securityContext"), "allowPrivilegeEscalation"),
        (lambda m: m.server["securityContext"].pop("readOnlyRootFilesystem"), "writable"),
        (lambda m: m.server["securityContext"]["capabilities"].update(add=["NET_ADMIN"]), "capabilities"),
        (lambda m: m.server["securityContext"].update(privileged=True), "privileged"),
        (lambda m: m.pod.update(hostNetwork=True), "namespace of the node"),
        (lambda m: m.one("Namespace")["metadata"]["labels"].clear(), "restricted"),
    ],
    policies.the_service_account_has_no_rights: [
        (lambda m: m.pod.pop("automountServiceAccountToken"), "token"),
        (lambda m: m.one("ServiceAccount").pop("automountServiceAccountToken"), "token"),
        (lambda m: m.pod.pop("serviceAccountName"), "another service account"),
        (lambda m: m.objects.append({"kind": "RoleBinding"}), "role"),
    ],
    policies.images_are_pinned: [
        (lambda m: m.server.update(image="vinegrape-serve:latest"), "latest has no full version"),
        (lambda m: m.server.update(image="vinegrape-serve"), "serve has no full version"),
        (lambda m: m.server.update(image="vinegrape-serve:1"), ":1 has no full version"),
    ],
    policies.ports_match_the_server: [
        (lambda m: m.server["ports"].append(TORCHSERVE_PORT), "8080"),
        (lambda m: port(m).update(targetPort="7070"), "7070"),
        (lambda m: m.server["ports"][0].update(containerPort=9000), "9000"),
    ],
    policies.services_reach_the_pods: [
        (lambda m: m.one("Service")["spec"]["selector"].update(a="b"), "does not select"),
        (lambda m: port(m).update(targetPort="web"), "web"),
        (lambda m: m.one("Service")["spec"]["ports"].append(METRICS_PORT), "not operations"),
        (lambda m: port(m).pop("appProtocol"), "appProtocol"),
        (lambda m: remove_variable(m, "VINEGRAPE_TLS_CERTIFICATE"), "{'http': 8000}"),
        (lambda m: m.one("Service")["spec"].update(externalTrafficPolicy="Cluster"), "clients' addresses"),
        (
            lambda m: (
                m.one("Service")["spec"].pop("loadBalancerSourceRanges"),
                remove_variable(m, "VINEGRAPE_API_KEYS"),
            ),
            "all addresses",
        ),
    ],
    policies.probes_use_the_operations_port: [
        (lambda m: m.server.pop("livenessProbe"), "livenessProbe"),
        (lambda m: m.server["readinessProbe"]["httpGet"].update(path="/ping", port="http"), "/ping"),
        (lambda m: m.server["startupProbe"].update(failureThreshold=60), "startup_timeout_s"),
    ],
    policies.the_grace_period_covers_the_drain: [
        (lambda m: m.server.pop("lifecycle"), "preStop does not wait"),
        (lambda m: m.server["lifecycle"].update(preStop={"exec": {"command": ["sleep", "10"]}}), "not a program"),
        (lambda m: m.server["lifecycle"]["preStop"]["sleep"].update(seconds=10), "new connections for 24 s"),
        (lambda m: m.pod.pop("terminationGracePeriodSeconds"), "killed after 30 s"),
        (lambda m: add_variable(m, "VINEGRAPE_DRAIN_TIMEOUT_S", "60"), "100 s"),
        (lambda m: add_variable(m, "VINEGRAPE_DRAIN_TIMEOUT_S", "5"), "shorter than deadline_ms"),
    ],
    policies.resources_are_limited: [
        (lambda m: resources(m, "limits").pop("memory"), "memory"),
        (lambda m: resources(m, "requests").update(memory="1Gi"), "evicts"),
        (lambda m: resources(m, "requests").pop("cpu"), "no CPU"),
        (lambda m: resources(m, "limits").update(cpu="2"), "100 ms"),
        (lambda m: resources(m, "limits").update(GPU), "GPU"),
    ],
    policies.workers_match_the_requested_cores: [
        (lambda m: remove_variable(m, "VINEGRAPE_WORKERS"), "None; it must be 2"),
        (lambda m: variable(m.server, "VINEGRAPE_WORKERS").update(value="8"), "8; it must be 2"),
        (lambda m: remove_variable(m, "JAVA_TOOL_OPTIONS"), "ActiveProcessorCount"),
    ],
    policies.the_memory_limit_covers_all_processes: [
        (lambda m: resources(m, "limits").update(memory="2Gi"), "2048 MiB"),
        (lambda m: resources(m, "requests").update(cpu="4"), "4 workers"),
        (lambda m: variable(m.server, "JAVA_TOOL_OPTIONS").update(value="-Xmx512m"), "no limit"),
        (lambda m: add_variable(m, "VINEGRAPE_DECODE_THREADS", "4"), "7984 MiB"),
        (lambda m: variable(m.server, "VINEGRAPE_MAX_IMAGE_BYTES").update(value="20000000"), "4362 MiB"),
    ],
    policies.only_tmp_is_writable: [
        (lambda m: m.pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}}), "host is not an emptyDir"),
        (lambda m: tmp(m).update(emptyDir={}), "no sizeLimit"),
        (lambda m: tmp(m)["emptyDir"].update(sizeLimit="10Mi"), "too small"),
        (lambda m: tmp(m)["emptyDir"].update(medium="Memory"), "memory limit"),
        (lambda m: tmp(m)["emptyDir"].update(sizeLimit="1Gi"), "not larger than the volumes"),
        (lambda m: m.server["volumeMounts"].append({"name": "tmp", "mountPath": "/srv"}), "other than /tmp"),
        (lambda m: named(m.server["volumeMounts"], "api-keys").pop("readOnly"), "not mounted read-only"),
        (lambda m: named(m.server["volumeMounts"], "tls").update(mountPath="/srv"), "not mounted read-only"),
    ],
    policies.settings_name_files_of_mounted_secrets: [
        (lambda m: m.server["volumeMounts"].remove(named(m.server["volumeMounts"], "api-keys")), "not mounted"),
        (lambda m: variable(m.server, "VINEGRAPE_TLS_KEY").update(value="/etc/vinegrape/key"), "not mounted"),
    ],
    policies.the_network_is_closed_by_default: [
        (lambda m: m.objects.remove(m.named("NetworkPolicy", "deny-all")), "no policy denies"),
        (lambda m: m.named("NetworkPolicy", "deny-all")["spec"].update(policyTypes=["Ingress"]), "no policy denies"),
        (
            lambda m: m.named("NetworkPolicy", "clients")["spec"]["podSelector"].update(matchLabels={"a": "b"}),
            "clients does not select",
        ),
        (lambda m: m.named("NetworkPolicy", "clients")["spec"].update(egress=[{}]), "egress"),
        (lambda m: ingress(m, "clients").pop("from"), "all sources"),
        (lambda m: ingress(m, "clients").pop("ports"), "all ports"),
        (lambda m: ingress(m, "clients")["ports"].append({"port": "operations"}), "operations"),
        (lambda m: ingress(m, "metrics").update({"from": [{"podSelector": {}}]}), "without a namespaceSelector"),
        (lambda m: ingress(m, "metrics").update({"from": [{"namespaceSelector": {}}]}), "all namespaces"),
    ],
    policies.only_the_autoscaler_sets_the_replicas: [
        (lambda m: m.one("Deployment")["spec"].update(replicas=2), "replicas"),
        (lambda m: m.one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"].update(name="other"), "other"),
        (lambda m: m.one("HorizontalPodAutoscaler")["spec"].update(minReplicas=10), "from 10 to 10"),
        (
            lambda m: m.one("HorizontalPodAutoscaler")["spec"]["metrics"][0]["resource"].update(name="memory"),
            "not use CPU",
        ),
    ],
    policies.nodes_can_be_drained: [
        (lambda m: m.one("PodDisruptionBudget").update(spec={"minAvailable": 2, "selector": {}}), "no eviction"),
        (lambda m: m.one("PodDisruptionBudget")["spec"].update(maxUnavailable=2), "all 2 pods"),
        (lambda m: m.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"].update(a="b"), "does not select"),
    ],
    policies.labels_match_selectors: [
        (lambda m: m.pod_labels.pop("app.kubernetes.io/name"), "its own pods"),
        (lambda m: m.one("Service")["metadata"].pop("labels"), "Service has no label"),
        (lambda m: m.one("Service")["metadata"].update(namespace="default"), "namespace default"),
        (lambda m: m.pod["topologySpreadConstraints"][0].update(labelSelector={"matchLabels": {"a": "b"}}), "spread"),
    ],
    policies.settings_are_valid: [
        (lambda m: add_variable(m, "VINEGRAPE_WORKES", "2"), "VINEGRAPE_WORKES is not a setting"),
        (lambda m: variable(m.server, "VINEGRAPE_MAX_IMAGE_BYTES").update(value="10MB"), "10MB"),
        (lambda m: m.server["env"].reverse(), "not defined before"),
    ],
    policies.prometheus_scrapes_the_pods: [
        (lambda m: m.named("PodMonitoring", "vinegrape").update(apiVersion="monitoring.googleapis.com/v2"), "v2"),
        (lambda m: m.named("PodMonitoring", "vinegrape")["spec"]["endpoints"][0].update(port="metrics"), "scrapes"),
        (
            lambda m: m.named("PodMonitoring", "vinegrape")["spec"]["selector"]["matchLabels"].update(a="b"),
            "does not select",
        ),
    ],
}


@pytest.mark.parametrize(
    ("policy", "change", "message"),
    [
        pytest.param(policy, change, message, id=f"{policy.__name__}-{message}")
        for policy, cases in BROKEN.items()
        for change, message in cases
    ],
)
def test_a_policy_finds_a_violation(policy, change, message, rendered):
    manifests = copy.deepcopy(rendered["components"])
    change(manifests)
    assert message in "\n".join(policy(manifests))


def test_every_policy_has_a_violation_in_the_table():
    assert set(BROKEN) == set(POLICIES)


def test_variables_refer_to_earlier_ones_as_in_the_kubelet(rendered):
    variables = environment(rendered["base"].server)
    assert variables["VINEGRAPE_WORKERS"] == "2"
    assert variables["JAVA_TOOL_OPTIONS"].startswith("-XX:ActiveProcessorCount=2 ")
