"""The rules that every rendered kustomization must follow. A policy yields one message per violation."""

import re
from collections.abc import Callable, Iterator

from tests.k8s.manifests import Manifests, environment, java_mebibytes, leaves, mebibytes, ports, selects
from tests.support.archives import info
from tests.support.dockerfile import Dockerfile
from tests.support.serve_settings import VARIABLES, from_environment
from vinegrape_handler.errors import SettingError
from vinegrape_server.plan import Plan, make_plan
from vinegrape_server.settings import ServeSettings

Policy = Callable[[Manifests], Iterator[str]]

IMAGE = Dockerfile("Dockerfile.serve")

DEFAULTS = ServeSettings(edge=True)  # as Dockerfile.serve sets it
PUBLIC_PORTS = {"http": DEFAULTS.edge_port}
PORTS = {**PUBLIC_PORTS, "operations": DEFAULTS.operations_port}
# TorchServe and the gateway, which only the edge may reach
PRIVATE_PORTS = {DEFAULTS.rest_port, DEFAULTS.grpc_port}
HTTPS_PORT = 443
ALL_ADDRESSES = "0.0.0.0/0"
# Where Secrets are mounted
SECRETS = "/etc/vinegrape/"

# Seconds that the processes have to stop after draining, before they are killed
STOP_S = 10
# Seconds until Google's load balancer knows that a node has no pod left: three health checks, 8 s apart
LOAD_BALANCER_S = 24
# MiB: the most that a worker used, and that Java used in addition to its heap and direct buffers. Measured with
# `vinegrape bench memory` and the settings of k8s/base.
WORKER_MIB, JAVA_OTHER_MIB = 800, 350
# MiB: per further decoding thread of a worker, measured in the same way; for CUDA, an estimate
DECODE_MIB, CUDA_MIB = 680, 2048
# What the edge holds at the same time: large uploads, each of the largest request's size; medium uploads, at least this
# number and at least one per request in TorchServe and in the queue, with their largest size. Then MiB for all others.
LARGE_UPLOADS, MEDIUM_UPLOADS, MEDIUM_BYTES, EDGE_OTHER_MIB = 16, 64, 8_000_000, 130
# gRPC messages that the gateway and the edge's inner entry both hold; MiB of the gateway without them, and of the
# supervisor
GRPC_MESSAGES, GATEWAY_OTHER_MIB, SUPERVISOR_MIB = 8, 60, 50
# Twice the size of the temporary folder of a server that has started
STARTED_MIB = 50


def pods_do_not_run_as_root(manifests: Manifests) -> Iterator[str]:
    context = manifests.pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if not context.get("runAsUser") or not context.get("runAsGroup"):
        yield "runAsUser or runAsGroup is 0 or not set"
    if "runAsUser" in manifests.server.get("securityContext", {}):
        yield "the container overrides the user of the pod"


def pods_are_restricted(manifests: Manifests) -> Iterator[str]:
    spec, context = manifests.pod, manifests.server.get("securityContext", {})
    if spec.get("securityContext", {}).get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "seccompProfile is not RuntimeDefault"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "the root file system is writable"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield "not all capabilities are dropped"
    if {"hostNetwork", "hostPID", "hostIPC"} & spec.keys() or context.get("privileged"):
        yield "the pod uses a namespace of the node or is privileged"
    if manifests.one("Namespace")["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") != "restricted":
        yield "the namespace does not enforce the restricted pod security standard"


def the_service_account_has_no_rights(manifests: Manifests) -> Iterator[str]:
    account = manifests.one("ServiceAccount")
    if manifests.pod.get("serviceAccountName") != account["metadata"]["name"]:
        yield "the pod uses another service account"
    for owner in (account, manifests.pod):
        if owner.get("automountServiceAccountToken") is not False:
            yield "a token is mounted"
    if manifests.of_kind("RoleBinding") or manifests.of_kind("ClusterRoleBinding"):
        yield "a role is bound"


def images_are_pinned(manifests: Manifests) -> Iterator[str]:
    image = manifests.server["image"]
    if not re.search(r"(:\d+\.\d+\.\d+(-gpu)?|@sha256:[0-9a-f]{64})$", image):
        yield f"{image} has no full version and no digest"


def ports_match_the_server(manifests: Manifests) -> Iterator[str]:
    if ports(manifests.server) != PORTS:
        yield f"the ports of the container are {ports(manifests.server)}; the server's are {PORTS}"
    for manifest in manifests.objects:
        for value in leaves(manifest):
            if str(value) in map(str, PRIVATE_PORTS):
                yield f"{manifest['kind']} contains port {value}, which is behind the edge"


def services_reach_the_pods(manifests: Manifests) -> Iterator[str]:
    variables = environment(manifests.server)
    encrypted, keys = "VINEGRAPE_TLS_CERTIFICATE" in variables, "VINEGRAPE_API_KEYS" in variables
    ports, protocol = ({"http": HTTPS_PORT}, "https") if encrypted else (PUBLIC_PORTS, "kubernetes.io/h2c")
    for service in manifests.of_kind("Service"):
        spec = service["spec"]
        if not spec["selector"].items() <= manifests.pod_labels.items():
            yield f"the selector {spec['selector']} does not select the pods"
        reached = {port["targetPort"]: port["port"] for port in spec["ports"]}
        if reached != ports:
            yield f"the Service reaches {reached}; it must reach {ports} and not operations"
        protocols = {port["name"]: port.get("appProtocol") for port in spec["ports"]}
        if protocols != {"http": protocol}:
            yield f"appProtocol is {protocols}"
        if spec.get("type") == "LoadBalancer":
            if spec.get("externalTrafficPolicy") != "Local":
                yield "the edge does not see the clients' addresses"
            accepts_all = ALL_ADDRESSES in spec.get("loadBalancerSourceRanges", [ALL_ADDRESSES])
            if accepts_all and not (encrypted and keys):
                yield "the load balancer accepts all addresses, without TLS or API keys"


def probes_use_the_operations_port(manifests: Manifests) -> Iterator[str]:
    for name, path in {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}.items():
        request = manifests.server.get(name, {}).get("httpGet")
        if request != {"path": path, "port": "operations"}:
            yield f"{name} requests {request}; it must request {path} on operations"
    startup = manifests.server.get("startupProbe", {})
    if startup.get("periodSeconds", 0) * startup.get("failureThreshold", 0) <= DEFAULTS.startup_timeout_s:
        yield f"startupProbe gives up before startup_timeout_s ({DEFAULTS.startup_timeout_s} s)"


def the_grace_period_covers_the_drain(manifests: Manifests) -> Iterator[str]:
    hook = manifests.server.get("lifecycle", {}).get("preStop", {})
    sleep_s = hook.get("sleep", {}).get("seconds", 0)
    if hook.keys() != {"sleep"} or sleep_s < 5:
        yield "preStop does not wait for the update of the endpoints; use its own sleep, not a program of the image"
    balancers = [service for service in manifests.of_kind("Service") if service["spec"].get("type") == "LoadBalancer"]
    if balancers and sleep_s <= LOAD_BALANCER_S:
        yield f"preStop ends after {sleep_s} s; the load balancer sends new connections for {LOAD_BALANCER_S} s"
    settings = _settings(manifests)
    drain_s = settings.drain_timeout_s
    if drain_s * 1000 < settings.deadline_ms:
        yield f"a drain of {drain_s} s is shorter than deadline_ms ({settings.deadline_ms} ms)"
    needed_s, grace_s = sleep_s + drain_s + STOP_S, manifests.pod.get("terminationGracePeriodSeconds", 30)
    if grace_s < needed_s:
        yield f"the pod is killed after {grace_s} s; preStop, drain and stop can take {needed_s} s"


def resources_are_limited(manifests: Manifests) -> Iterator[str]:
    requests = manifests.server["resources"].get("requests", {})
    limits = manifests.server["resources"].get("limits", {})
    for name in ("memory", "ephemeral-storage"):
        if name not in limits or limits[name] != requests.get(name):
            yield f"{name}: request and limit differ, so a full node evicts the pod first"
    if "cpu" not in requests:
        yield "no CPU is requested, so the autoscaler and the number of workers have no basis"
    if "cpu" in limits:
        yield "a CPU limit pauses all workers for the rest of each 100 ms"
    if limits.get("nvidia.com/gpu") != requests.get("nvidia.com/gpu"):
        yield "the request and the limit of GPUs differ"


def workers_match_the_requested_cores(manifests: Manifests) -> Iterator[str]:
    """By default, the server starts one worker per core of the node."""
    requests, variables = manifests.server["resources"].get("requests", {}), environment(manifests.server)
    workers = requests.get("nvidia.com/gpu") or requests.get("cpu")
    if variables.get("VINEGRAPE_WORKERS") != workers:
        yield f"VINEGRAPE_WORKERS is {variables.get('VINEGRAPE_WORKERS')}; it must be {workers}"
    if f"-XX:ActiveProcessorCount={requests.get('cpu')}" not in variables.get("JAVA_TOOL_OPTIONS", "").split():
        yield "Java uses all cores of the node: ActiveProcessorCount is not the requested number of cores"


def the_memory_limit_covers_all_processes(manifests: Manifests) -> Iterator[str]:
    server, variables = manifests.server, environment(manifests.server)
    java = java_mebibytes(server)
    if java is None:
        yield "Java's heap or direct buffers have no limit in megabytes"
    workers, on_gpu = int(variables.get("VINEGRAPE_WORKERS", 0)), "nvidia.com/gpu" in server["resources"]["limits"]
    threads = int(variables.get("VINEGRAPE_DECODE_THREADS", 8 if on_gpu else 1))
    worker = WORKER_MIB + (threads - 1) * DECODE_MIB + (CUDA_MIB if on_gpu else 0)
    plan = make_plan(_settings(manifests), info("onnx_int8", "torchscript"), gpus=int(on_gpu), torch_installed=on_gpu)
    needed = (java or 0) + JAVA_OTHER_MIB + workers * worker + edge_mebibytes(plan) + gateway_mebibytes(plan)
    limit = mebibytes(server["resources"]["limits"].get("memory", "0Mi"))
    if limit < needed:
        yield f"the memory limit is {limit:.0f} MiB; all processes with {workers} workers can use {needed:.0f} MiB"


def edge_mebibytes(plan: Plan) -> float:
    """The most that the edge uses."""
    medium = max(MEDIUM_UPLOADS, plan.slots + plan.settings.queue_size)
    return (LARGE_UPLOADS * plan.settings.max_request_bytes + medium * MEDIUM_BYTES) / 2**20 + EDGE_OTHER_MIB


def gateway_mebibytes(plan: Plan) -> float:
    """The most that the gateway with its messages, and the supervisor, use."""
    return 2 * GRPC_MESSAGES * plan.settings.max_request_bytes / 2**20 + GATEWAY_OTHER_MIB + SUPERVISOR_MIB


def only_tmp_is_writable(manifests: Manifests) -> Iterator[str]:
    volumes = manifests.pod.get("volumes", [])
    secrets = {volume["name"] for volume in volumes if volume.keys() == {"name", "secret"}}
    mounts = manifests.server.get("volumeMounts", [])
    if [mount["mountPath"] for mount in mounts if mount["name"] not in secrets] != ["/tmp"]:
        yield "a folder other than /tmp is mounted"
    for mount in mounts:
        if mount["name"] in secrets and not (mount["mountPath"].startswith(SECRETS) and mount.get("readOnly")):
            yield f"{mount['name']} is not mounted read-only below {SECRETS}"
    for volume in volumes:
        if volume["name"] in secrets:
            continue
        folder = volume.get("emptyDir", {})
        if volume.keys() != {"name", "emptyDir"}:
            yield f"{volume['name']} is not an emptyDir"
        elif "sizeLimit" not in folder:
            yield f"{volume['name']} has no sizeLimit"
        elif mebibytes(folder["sizeLimit"]) < STARTED_MIB:
            yield f"{volume['name']} is too small for the unpacked archive"
        elif folder.get("medium") == "Memory":
            yield f"{volume['name']} uses memory that counts against the memory limit"
    size = sum(mebibytes(volume.get("emptyDir", {}).get("sizeLimit", "0Mi")) for volume in volumes)
    if mebibytes(manifests.server["resources"]["limits"].get("ephemeral-storage", "0Mi")) <= size:
        yield "ephemeral-storage is not larger than the volumes"


def the_network_is_closed_by_default(manifests: Manifests) -> Iterator[str]:
    policies = manifests.of_kind("NetworkPolicy")
    if {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} not in [policy["spec"] for policy in policies]:
        yield "no policy denies all traffic"
    for policy in policies:
        name, spec = policy["metadata"]["name"], policy["spec"]
        if not selects(spec["podSelector"], manifests.pod_labels):
            yield f"{name} does not select the pods"
        if "egress" in spec or ("ingress" in spec and "Ingress" not in spec["policyTypes"]):
            yield f"{name} allows egress or has ingress rules without the type Ingress"
        for rule in spec.get("ingress", []):
            sources, opened = rule.get("from", []), {port.get("port") for port in rule.get("ports", [])}
            if not sources:
                yield f"{name} accepts all sources"
            if not opened or not (opened <= PUBLIC_PORTS.keys() or opened == {"operations"}):
                yield f"{name} opens {opened or 'all ports'}"
            if opened == {"operations"} and not all("namespaceSelector" in source for source in sources):
                yield f"{name} opens operations without a namespaceSelector"
            if any(source.get("namespaceSelector") == {} for source in sources):
                yield f"{name} accepts all namespaces"


def settings_name_files_of_mounted_secrets(manifests: Manifests) -> Iterator[str]:
    mounted = {mount["mountPath"] for mount in manifests.server.get("volumeMounts", [])}
    for name, value in environment(manifests.server).items():
        if value.startswith(SECRETS) and value.rpartition("/")[0] not in mounted:
            yield f"{name} is {value}, but that folder is not mounted"


def only_the_autoscaler_sets_the_replicas(manifests: Manifests) -> Iterator[str]:
    deployment, scaler = manifests.one("Deployment"), manifests.one("HorizontalPodAutoscaler")["spec"]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"]}
    if scaler["scaleTargetRef"] != target:
        yield f"the autoscaler scales {scaler['scaleTargetRef']}"
    if "replicas" in deployment["spec"]:
        yield "the Deployment sets replicas, so every apply resets the autoscaler's number"
    if not 1 <= scaler["minReplicas"] < scaler["maxReplicas"]:
        yield f"the autoscaler scales from {scaler['minReplicas']} to {scaler['maxReplicas']}"
    if [metric["resource"]["name"] for metric in scaler["metrics"]] != ["cpu"]:
        yield "the autoscaler does not use CPU"


def nodes_can_be_drained(manifests: Manifests) -> Iterator[str]:
    budget = manifests.one("PodDisruptionBudget")["spec"]
    if not selects(budget["selector"], manifests.pod_labels):
        yield "the budget does not select the pods"
    minimum = manifests.one("HorizontalPodAutoscaler")["spec"]["minReplicas"]
    evictable = budget["maxUnavailable"] if "maxUnavailable" in budget else minimum - budget["minAvailable"]
    if evictable < 1:
        yield f"the budget allows no eviction of {minimum} pods"
    if minimum > 1 and evictable >= minimum:
        yield f"the budget allows the eviction of all {minimum} pods at once"


def labels_match_selectors(manifests: Manifests) -> Iterator[str]:
    if not selects(manifests.one("Deployment")["spec"]["selector"], manifests.pod_labels):
        yield "the Deployment does not select its own pods"
    for constraint in manifests.pod.get("topologySpreadConstraints", []):
        if not selects(constraint["labelSelector"], manifests.pod_labels):
            yield f"the spread over {constraint['topologyKey']} does not select the pods"
    for manifest in manifests.objects:
        if manifest["metadata"].get("labels", {}).get("app.kubernetes.io/name") != "vinegrape":
            yield f"{manifest['kind']} has no label app.kubernetes.io/name"
        namespace = manifest["metadata"].get("namespace")
        if manifest["kind"] != "Namespace" and namespace != manifests.one("Namespace")["metadata"]["name"]:
            yield f"{manifest['kind']} is in namespace {namespace}"


def settings_are_valid(manifests: Manifests) -> Iterator[str]:
    variables = environment(manifests.server)
    for name, value in variables.items():
        if name.startswith("VINEGRAPE_") and name not in VARIABLES:
            yield f"{name} is not a setting"
        if "$(" in value:
            yield f"{name} is {value}, which refers to a variable that is not defined before it"
    try:
        _settings(manifests)
    except SettingError as error:
        yield str(error)


def _settings(manifests: Manifests) -> ServeSettings:
    """The settings of the server, with the variables of the image."""
    return from_environment({**IMAGE.environment, **environment(manifests.server)})


SCRAPED = {"vinegrape": "/metrics", "vinegrape-edge": "/metrics/haproxy"}
"""Paths by the name of the PodMonitoring, which becomes the label `job` that rules and dashboard expect."""


def prometheus_scrapes_the_pods(manifests: Manifests) -> Iterator[str]:
    """No installed schema describes PodMonitoring, so its fields are checked here."""
    for monitoring in manifests.of_kind("PodMonitoring"):
        if monitoring["apiVersion"] != "monitoring.googleapis.com/v1":
            yield f"apiVersion is {monitoring['apiVersion']}"
        if not selects(monitoring["spec"]["selector"], manifests.pod_labels):
            yield "PodMonitoring does not select the pods"
        endpoints = [
            {key: each.get(key) for key in ("port", "path", "interval")} for each in monitoring["spec"]["endpoints"]
        ]
        path = SCRAPED.get(monitoring["metadata"]["name"])
        if endpoints != [{"port": "operations", "path": path, "interval": "30s"}]:
            yield f"PodMonitoring scrapes {monitoring['spec']['endpoints']}"


POLICIES: tuple[Policy, ...] = (
    pods_do_not_run_as_root,
    pods_are_restricted,
    the_service_account_has_no_rights,
    images_are_pinned,
    ports_match_the_server,
    services_reach_the_pods,
    probes_use_the_operations_port,
    the_grace_period_covers_the_drain,
    resources_are_limited,
    workers_match_the_requested_cores,
    the_memory_limit_covers_all_processes,
    only_tmp_is_writable,
    settings_name_files_of_mounted_secrets,
    the_network_is_closed_by_default,
    only_the_autoscaler_sets_the_replicas,
    nodes_can_be_drained,
    labels_match_selectors,
    settings_are_valid,
    prometheus_scrapes_the_pods,
)
