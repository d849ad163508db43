"""The policies hold for every kustomization, and each fails for manifests that were broken on purpose."""

import copy

import pytest

from tests.k8s import policies
from tests.k8s.manifests import FOLDERS, container, environment, of_kind, one, pod
from tests.k8s.policies import POLICIES


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
def test_a_policy_holds(policy, folder, rendered):
    assert list(policy(rendered[folder])) == []


def variable(manifests, name):
    (found,) = [each for each in container(manifests)["env"] if each["name"] == name]
    return found


def port_of(manifests, kind, name):
    (found,) = [each for each in one(manifests, kind)["spec"]["ports"] if each["name"] == name]
    return found


def policy_named(manifests, name):
    (found,) = [each for each in of_kind(manifests, "NetworkPolicy") if each["metadata"]["name"] == name]
    return found


# Policy, what breaks it, and a word of the complaint
BROKEN = [
    (policies.nobody_is_root, lambda m: pod(m)["spec"]["securityContext"].update(runAsNonRoot=False), "runAsNonRoot"),
    (policies.nobody_is_root, lambda m: pod(m)["spec"]["securityContext"].update(runAsUser=0), "root's"),
    (policies.nobody_is_root, lambda m: container(m)["securityContext"].update(runAsUser=0), "of its own"),
    (policies.the_pod_is_confined, lambda m: container(m).pop("securityContext"), "escalated"),
    (policies.the_pod_is_confined, lambda m: pod(m)["spec"]["securityContext"].pop("seccompProfile"), "seccomp"),
    (
        policies.the_pod_is_confined,
        lambda m: container(m)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
        "capabilities",
    ),
    (policies.the_pod_is_confined, lambda m: container(m)["securityContext"].update(privileged=True), "the node's"),
    (policies.the_pod_is_confined, lambda m: pod(m)["spec"].update(hostNetwork=True), "the node's"),
    (policies.the_pod_is_confined, lambda m: one(m, "Namespace")["metadata"]["labels"].clear(), "restricted"),
    (policies.no_token, lambda m: pod(m)["spec"].pop("automountServiceAccountToken"), "token"),
    (policies.no_token, lambda m: one(m, "ServiceAccount").pop("automountServiceAccountToken"), "token"),
    (policies.no_token, lambda m: pod(m)["spec"].pop("serviceAccountName"), "another account"),
    (policies.no_token, lambda m: m.append({"kind": "RoleBinding"}), "rights"),
    (policies.images_are_pinned, lambda m: container(m).update(image="vinegrape-serve:latest"), "latest"),
    (policies.images_are_pinned, lambda m: container(m).update(image="vinegrape-serve"), "no version"),
    (policies.images_are_pinned, lambda m: container(m).update(image="vinegrape-serve:1"), "no version"),
    (
        policies.ports_are_the_servers,
        lambda m: container(m)["ports"].append({"name": "management", "containerPort": 8081}),
        "8081",
    ),
    (policies.ports_are_the_servers, lambda m: port_of(m, "Service", "rest").update(targetPort="8082"), "8082"),
    (policies.ports_are_the_servers, lambda m: variable(m, "VINEGRAPE_WORKERS").update(value="7071"), "7071"),
    (policies.ports_are_the_servers, lambda m: container(m)["ports"][0].update(containerPort=8000), "8000"),
    (policies.services_reach_the_pods, lambda m: one(m, "Service")["spec"]["selector"].update(a="b"), "selects no pod"),
    (policies.services_reach_the_pods, lambda m: port_of(m, "Service", "rest").update(targetPort="web"), "web"),
    (
        policies.services_reach_the_pods,
        lambda m: one(m, "Service")["spec"]["ports"].append(
            {"name": "metrics", "port": 8083, "targetPort": "operations"}
        ),
        "never operations",
    ),
    (policies.services_reach_the_pods, lambda m: port_of(m, "Service", "grpc").pop("appProtocol"), "protocols"),
    (policies.services_reach_the_pods, lambda m: one(m, "Service")["spec"].update(type="LoadBalancer"), "everybody"),
    (policies.probes_ask_the_operations_port, lambda m: container(m).pop("livenessProbe"), "livenessProbe"),
    (
        policies.probes_ask_the_operations_port,
        lambda m: container(m)["readinessProbe"]["httpGet"].update(path="/ping", port="rest"),
        "/ping",
    ),
    (
        policies.probes_ask_the_operations_port,
        lambda m: container(m)["startupProbe"].update(failureThreshold=60),
        "startup_timeout_s",
    ),
    (policies.stops_in_time, lambda m: container(m).pop("lifecycle"), "preStop"),
    (
        policies.stops_in_time,
        lambda m: container(m)["lifecycle"].update(preStop={"exec": {"command": ["sleep", "10"]}}),
        "no shell",
    ),
    (policies.stops_in_time, lambda m: pod(m)["spec"].pop("terminationGracePeriodSeconds"), "killed after 30 s"),
    (
        policies.stops_in_time,
        lambda m: container(m)["env"].append({"name": "VINEGRAPE_DRAIN_TIMEOUT_S", "value": "60"}),
        "80 s",
    ),
    (policies.resources_are_bounded, lambda m: container(m)["resources"]["limits"].pop("memory"), "memory"),
    (policies.resources_are_bounded, lambda m: container(m)["resources"]["requests"].update(memory="1Gi"), "evicts"),
    (policies.resources_are_bounded, lambda m: container(m)["resources"]["requests"].pop("cpu"), "CPU"),
    (policies.resources_are_bounded, lambda m: container(m)["resources"]["limits"].update(cpu="2"), "100 ms"),
    (
        policies.resources_are_bounded,
        lambda m: container(m)["resources"]["limits"].update({"nvidia.com/gpu": "1"}),
        "GPU",
    ),
    (policies.workers_have_cores, lambda m: container(m)["env"].remove(variable(m, "VINEGRAPE_WORKERS")), "None"),
    (policies.workers_have_cores, lambda m: variable(m, "VINEGRAPE_WORKERS").update(value="8"), "8; it must be 2"),
    (policies.workers_have_cores, lambda m: container(m)["env"].remove(variable(m, "JAVA_TOOL_OPTIONS")), "Java"),
    (policies.memory_fits, lambda m: container(m)["resources"]["limits"].update(memory="2Gi"), "2048 MiB"),
    (policies.memory_fits, lambda m: container(m)["resources"]["requests"].update(cpu="4"), "4 workers"),
    (policies.memory_fits, lambda m: variable(m, "JAVA_TOOL_OPTIONS").update(value="-Xmx512m"), "not bounded"),
    (
        policies.memory_fits,
        lambda m: container(m)["env"].append({"name": "VINEGRAPE_DECODE_THREADS", "value": "4"}),
        "7566 MiB",
    ),
    (
        policies.only_tmp_can_be_written,
        lambda m: pod(m)["spec"]["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
        "host is no emptyDir",
    ),
    (policies.only_tmp_can_be_written, lambda m: pod(m)["spec"]["volumes"][0].update(emptyDir={}), "no limit"),
    (
        policies.only_tmp_can_be_written,
        lambda m: pod(m)["spec"]["volumes"][0]["emptyDir"].update(sizeLimit="10Mi"),
        "cannot hold",
    ),
    (
        policies.only_tmp_can_be_written,
        lambda m: pod(m)["spec"]["volumes"][0]["emptyDir"].update(medium="Memory"),
        "memory limit",
    ),
    (
        policies.only_tmp_can_be_written,
        lambda m: pod(m)["spec"]["volumes"][0]["emptyDir"].update(sizeLimit="1Gi"),
        "no room",
    ),
    (
        policies.only_tmp_can_be_written,
        lambda m: container(m)["volumeMounts"].append({"name": "tmp", "mountPath": "/srv"}),
        "not /tmp alone",
    ),
    (policies.the_network_is_closed, lambda m: m.remove(policy_named(m, "deny-all")), "nothing denies all"),
    (
        policies.the_network_is_closed,
        lambda m: policy_named(m, "deny-all")["spec"].update(policyTypes=["Ingress"]),
        "nothing denies all",
    ),
    (
        policies.the_network_is_closed,
        lambda m: policy_named(m, "clients")["spec"]["podSelector"].update(matchLabels={"app": "vinegrape"}),
        "clients selects no pod",
    ),
    (
        policies.the_network_is_closed,
        lambda m: policy_named(m, "clients")["spec"]["ingress"][0].pop("from"),
        "from where",
    ),
    (policies.the_network_is_closed, lambda m: policy_named(m, "clients")["spec"]["ingress"][0].pop("ports"), "every"),
    (
        policies.the_network_is_closed,
        lambda m: policy_named(m, "clients")["spec"]["ingress"][0]["ports"].append({"port": "operations"}),
        "operations",
    ),
    (
        policies.the_network_is_closed,
        lambda m: policy_named(m, "metrics")["spec"]["ingress"][0].update({"from": [{"podSelector": {}}]}),
        "some namespaces",
    ),
    (
        policies.the_network_is_closed,
        lambda m: policy_named(m, "metrics")["spec"]["ingress"][0].update({"from": [{"namespaceSelector": {}}]}),
        "every namespace",
    ),
    (policies.the_network_is_closed, lambda m: policy_named(m, "clients")["spec"].update(egress=[{}]), "call out"),
    (policies.the_autoscaler_rules_alone, lambda m: one(m, "Deployment")["spec"].update(replicas=2), "replicas"),
    (
        policies.the_autoscaler_rules_alone,
        lambda m: one(m, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"].update(name="other"),
        "other",
    ),
    (
        policies.the_autoscaler_rules_alone,
        lambda m: one(m, "HorizontalPodAutoscaler")["spec"].update(minReplicas=10),
        "from 10 to 10",
    ),
    (
        policies.a_node_can_be_emptied,
        lambda m: one(m, "PodDisruptionBudget").update(spec={"minAvailable": 2, "selector": {}}),
        "none go",
    ),
    (policies.a_node_can_be_emptied, lambda m: one(m, "PodDisruptionBudget")["spec"].update(maxUnavailable=2), "all"),
    (
        policies.a_node_can_be_emptied,
        lambda m: one(m, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].update(a="b"),
        "selects no pod",
    ),
    (
        policies.labels_and_selectors_agree,
        lambda m: pod(m)["metadata"]["labels"].pop("app.kubernetes.io/name"),
        "its own pods",
    ),
    (policies.labels_and_selectors_agree, lambda m: one(m, "Service")["metadata"].pop("labels"), "Service has no"),
    (
        policies.labels_and_selectors_agree,
        lambda m: one(m, "Service")["metadata"].update(namespace="default"),
        "namespace default",
    ),
    (
        policies.labels_and_selectors_agree,
        lambda m: pod(m)["spec"]["topologySpreadConstraints"][0]["labelSelector"].update(matchLabels={"a": "b"}),
        "spread",
    ),
    (
        policies.settings_are_known,
        lambda m: container(m)["env"].append({"name": "VINEGRAPE_WORKES", "value": "2"}),
        "VINEGRAPE_WORKES is no setting",
    ),
    (policies.settings_are_known, lambda m: variable(m, "VINEGRAPE_MAX_IMAGE_BYTES").update(value="10MB"), "10MB"),
    (policies.settings_are_known, lambda m: container(m)["env"].reverse(), "not set before"),
    (
        policies.prometheus_finds_the_pods,
        lambda m: one(m, "PodMonitoring")["spec"]["endpoints"][0].update(port="metrics"),
        "metrics",
    ),
    (
        policies.prometheus_finds_the_pods,
        lambda m: one(m, "PodMonitoring")["spec"]["selector"]["matchLabels"].update(a="b"),
        "selects no pod",
    ),
]


@pytest.mark.parametrize(
    ("policy", "spoil", "complaint"), BROKEN, ids=[f"{policy.__name__}-{word}" for policy, _, word in BROKEN]
)
def test_a_policy_finds_what_breaks_it(policy, spoil, complaint, rendered):
    manifests = copy.deepcopy(rendered["overlays/cpu"])
    spoil(manifests)
    assert complaint in "\n".join(policy(manifests))


def test_every_policy_is_known_to_find_something():
    assert {policy for policy, _, _ in BROKEN} == set(POLICIES)


def test_variables_are_resolved_as_the_kubelet_does(rendered):
    variables = environment(container(rendered["base"]))
    assert variables["VINEGRAPE_WORKERS"] == "2"
    assert variables["JAVA_TOOL_OPTIONS"].startswith("-XX:ActiveProcessorCount=2 ")
