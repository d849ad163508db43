"""What every rendered kustomization must keep. A policy yields what breaks it; nothing, if nothing does."""

import re
from collections.abc import Callable, Iterator

from tests.k8s.manifests import (
    Manifest,
    container,
    environment,
    leaves,
    mebibytes,
    of_kind,
    one,
    pod,
    ports,
    selects,
)
from vinegrape_handler.errors import SettingError
from vinegrape_server.settings import ServeSettings, fields

Policy = Callable[[list[Manifest]], Iterator[str]]

DEFAULTS = ServeSettings()
PUBLIC_PORTS = {"rest": DEFAULTS.rest_port, "grpc": DEFAULTS.grpc_port}
PORTS = {**PUBLIC_PORTS, "operations": DEFAULTS.operations_port}
PRIVATE_PORTS = {DEFAULTS.management_port, DEFAULTS.grpc_management_port, DEFAULTS.metrics_port}

# After draining: TorchServe is asked to end, and killed if it does not
STOP_S = 10
# loadtests/vinegrape_loadtests/memory.py, run as k8s/base runs:
# the most that a worker took, and Java beside its heap and buffers, in MiB
WORKER_MIB, JAVA_BESIDE_MIB = 800, 350
# The same: what each further decoding thread of a worker adds. And what is kept for CUDA, which nobody has measured.
DECODE_MIB, CUDA_MIB = 680, 2048
# The temporary folder of a server that was started, and as much again
STARTED_MIB = 50


def nobody_is_root(manifests: list[Manifest]) -> Iterator[str]:
    context = pod(manifests)["spec"].get("securityContext", {})
    if context.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if not context.get("runAsUser") or not context.get("runAsGroup"):
        yield "runAsUser or runAsGroup is root's, or the image's to choose"
    if "runAsUser" in container(manifests).get("securityContext", {}):
        yield "the container chooses a user of its own"


def the_pod_is_confined(manifests: list[Manifest]) -> Iterator[str]:
    spec, context = pod(manifests)["spec"], container(manifests).get("securityContext", {})
    if spec.get("securityContext", {}).get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "seccompProfile is not RuntimeDefault"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "privileges can be escalated"
    if context.get("readOnlyRootFilesystem") is not True:
        yield "the root file system can be written"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield "not all capabilities are dropped"
    if {"hostNetwork", "hostPID", "hostIPC"} & spec.keys() or context.get("privileged"):
        yield "the pod shares what is the node's"
    if one(manifests, "Namespace")["metadata"]["labels"].get("pod-security.kubernetes.io/enforce") != "restricted":
        yield "the namespace does not enforce restricted pods"


def no_token(manifests: list[Manifest]) -> Iterator[str]:
    account, spec = one(manifests, "ServiceAccount"), pod(manifests)["spec"]
    if spec.get("serviceAccountName") != account["metadata"]["name"]:
        yield "the pod runs as another account"
    for where in (account, spec):
        if where.get("automountServiceAccountToken") is not False:
            yield "a token is mounted"
    if of_kind(manifests, "RoleBinding") or of_kind(manifests, "ClusterRoleBinding"):
        yield "the account is given rights"


def images_are_pinned(manifests: list[Manifest]) -> Iterator[str]:
    image = container(manifests)["image"]
    if not re.search(r"(:\d+\.\d+\.\d+(-gpu)?|@sha256:[0-9a-f]{64})$", image):
        yield f"{image} is no version and no digest"


def ports_are_the_servers(manifests: list[Manifest]) -> Iterator[str]:
    if ports(container(manifests)) != PORTS:
        yield f"the container's ports are {ports(container(manifests))}, the server's {PORTS}"
    for manifest in manifests:
        for value in leaves(manifest):
            if str(value) in map(str, PRIVATE_PORTS):
                yield f"{manifest['kind']} names port {value}, which is the pod's own"


def services_reach_the_pods(manifests: list[Manifest]) -> Iterator[str]:
    labels = pod(manifests)["metadata"]["labels"]
    for service in of_kind(manifests, "Service"):
        if not service["spec"]["selector"].items() <= labels.items():
            yield f"selector {service['spec']['selector']} selects no pod of ours"
        reached = {port["targetPort"]: port["port"] for port in service["spec"]["ports"]}
        if reached != PUBLIC_PORTS:
            yield f"the Service reaches {reached}; it must be {PUBLIC_PORTS}, and never operations"
        protocols = {port["name"]: port.get("appProtocol") for port in service["spec"]["ports"]}
        if protocols != {"rest": "http", "grpc": "kubernetes.io/h2c"}:
            yield f"the application protocols are {protocols}"
        outside = service["spec"].get("type") == "LoadBalancer"
        if outside and not service["spec"].get("loadBalancerSourceRanges"):
            yield "the load balancer lets everybody in"


def probes_ask_the_operations_port(manifests: list[Manifest]) -> Iterator[str]:
    server = container(manifests)
    for probe, path in {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}.items():
        asked = server.get(probe, {}).get("httpGet")
        if asked != {"path": path, "port": "operations"}:
            yield f"{probe} asks {asked}, not {path} on operations"
    startup = server.get("startupProbe", {})
    if startup.get("periodSeconds", 0) * startup.get("failureThreshold", 0) <= DEFAULTS.startup_timeout_s:
        yield f"startupProbe ends before startup_timeout_s, {DEFAULTS.startup_timeout_s} s"


def stops_in_time(manifests: list[Manifest]) -> Iterator[str]:
    before = container(manifests).get("lifecycle", {}).get("preStop", {})
    sleep = before.get("sleep", {}).get("seconds", 0)
    if before.keys() != {"sleep"} or sleep < 5:
        yield "preStop does not sleep while the endpoints are updated; the image has no shell for exec"
    drain = int(environment(container(manifests)).get("VINEGRAPE_DRAIN_TIMEOUT_S", DEFAULTS.drain_timeout_s))
    needed, grace = sleep + drain + STOP_S, pod(manifests)["spec"].get("terminationGracePeriodSeconds", 30)
    if grace < needed:
        yield f"the pod is killed after {grace} s; preStop, draining and ending take {needed} s"


def resources_are_bounded(manifests: list[Manifest]) -> Iterator[str]:
    resources = container(manifests)["resources"]
    requests, limits = resources.get("requests", {}), resources.get("limits", {})
    for name in ("memory", "ephemeral-storage"):
        if name not in limits or limits[name] != requests.get(name):
            yield f"{name}: request and limit must be the same, or a full node evicts the pod"
    if "cpu" not in requests:
        yield "no CPU is requested: nothing to scale by, nothing to count workers by"
    if "cpu" in limits:
        yield "a CPU limit stops all workers together, for the rest of each 100 ms"
    if limits.get("nvidia.com/gpu") != requests.get("nvidia.com/gpu"):
        yield "a GPU is requested and not limited to"


def workers_have_cores(manifests: list[Manifest]) -> Iterator[str]:
    """Left to itself, serve starts a worker for every core of the node."""
    server = container(manifests)
    requests, variables = server["resources"].get("requests", {}), environment(server)
    workers = requests.get("nvidia.com/gpu") or requests.get("cpu")
    if variables.get("VINEGRAPE_WORKERS") != workers:
        yield f"VINEGRAPE_WORKERS is {variables.get('VINEGRAPE_WORKERS')}; it must be {workers}"
    if f"-XX:ActiveProcessorCount={requests.get('cpu')}" not in variables.get("JAVA_TOOL_OPTIONS", "").split():
        yield "Java is not told its cores, and takes the node's"


def memory_fits(manifests: list[Manifest]) -> Iterator[str]:
    server = container(manifests)
    variables = environment(server)
    java = re.findall(r"-(?:Xmx|XX:MaxDirectMemorySize=)(\d+)m\b", variables.get("JAVA_TOOL_OPTIONS", ""))
    if len(java) != 2:
        yield "Java's heap and buffers are not bounded in megabytes"
    workers, on_gpu = int(variables.get("VINEGRAPE_WORKERS", 0)), "nvidia.com/gpu" in server["resources"]["limits"]
    threads = int(variables.get("VINEGRAPE_DECODE_THREADS", 8 if on_gpu else 1))
    worker = WORKER_MIB + (threads - 1) * DECODE_MIB + (CUDA_MIB if on_gpu else 0)
    needed = sum(map(int, java)) + JAVA_BESIDE_MIB + workers * worker
    limit = mebibytes(server["resources"]["limits"].get("memory", "0Mi"))
    if limit < needed:
        yield f"memory is limited to {limit:.0f} MiB; Java and {workers} workers can take {needed} MiB"


def only_tmp_can_be_written(manifests: list[Manifest]) -> Iterator[str]:
    spec, server = pod(manifests)["spec"], container(manifests)
    if [mount["mountPath"] for mount in server.get("volumeMounts", [])] != ["/tmp"]:
        yield "what is mounted is not /tmp alone"
    for volume in spec.get("volumes", []):
        folder = volume.get("emptyDir", {})
        if volume.keys() != {"name", "emptyDir"}:
            yield f"{volume['name']} is no emptyDir"
        elif "sizeLimit" not in folder:
            yield f"{volume['name']} has no limit"
        elif mebibytes(folder["sizeLimit"]) < STARTED_MIB:
            yield f"{volume['name']} cannot hold the unpacked archive"
        elif folder.get("medium") == "Memory":
            yield f"{volume['name']} takes its space from the memory limit"
    size = sum(mebibytes(v.get("emptyDir", {}).get("sizeLimit", "0Mi")) for v in spec.get("volumes", []))
    if mebibytes(server["resources"]["limits"].get("ephemeral-storage", "0Mi")) <= size:
        yield "ephemeral-storage leaves no room beside the volumes"


def the_network_is_closed(manifests: list[Manifest]) -> Iterator[str]:
    labels, policies = pod(manifests)["metadata"]["labels"], of_kind(manifests, "NetworkPolicy")
    closed = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    if closed not in [policy["spec"] for policy in policies]:
        yield "nothing denies all"
    for policy in policies:
        name, spec = policy["metadata"]["name"], policy["spec"]
        if not selects(spec["podSelector"], labels):
            yield f"{name} selects no pod of ours"
        if "egress" in spec or ("ingress" in spec and "Ingress" not in spec["policyTypes"]):
            yield f"{name} lets the pods call out, or says nothing"
        for rule in spec.get("ingress", []):
            opened = {port.get("port") for port in rule.get("ports", [])}
            if not rule.get("from"):
                yield f"{name} does not say from where"
            if not opened or not (opened <= PUBLIC_PORTS.keys() or opened == {"operations"}):
                yield f"{name} opens {opened or 'every port'}"
            if opened == {"operations"} and not all("namespaceSelector" in source for source in rule["from"]):
                yield f"{name} opens operations to more than some namespaces"
            if any(source.get("namespaceSelector") == {} for source in rule.get("from", [])):
                yield f"{name} lets every namespace in"


def the_autoscaler_rules_alone(manifests: list[Manifest]) -> Iterator[str]:
    deployment, scaler = one(manifests, "Deployment"), one(manifests, "HorizontalPodAutoscaler")["spec"]
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment["metadata"]["name"]}
    if scaler["scaleTargetRef"] != target:
        yield f"it scales {scaler['scaleTargetRef']}"
    if "replicas" in deployment["spec"]:
        yield "the Deployment says replicas too: every apply would undo the autoscaler's"
    if not 1 <= scaler["minReplicas"] < scaler["maxReplicas"]:
        yield f"it scales from {scaler['minReplicas']} to {scaler['maxReplicas']}"
    if [metric["resource"]["name"] for metric in scaler["metrics"]] != ["cpu"]:
        yield "it does not scale by CPU"


def a_node_can_be_emptied(manifests: list[Manifest]) -> Iterator[str]:
    budget = one(manifests, "PodDisruptionBudget")["spec"]
    if not selects(budget["selector"], pod(manifests)["metadata"]["labels"]):
        yield "the budget selects no pod of ours"
    fewest = one(manifests, "HorizontalPodAutoscaler")["spec"]["minReplicas"]
    evictable = budget["maxUnavailable"] if "maxUnavailable" in budget else fewest - budget["minAvailable"]
    if evictable < 1:
        yield f"of {fewest} pods the budget lets none go"
    if fewest > 1 and evictable >= fewest:
        yield f"of {fewest} pods the budget lets all go at once"


def labels_and_selectors_agree(manifests: list[Manifest]) -> Iterator[str]:
    labels = pod(manifests)["metadata"]["labels"]
    if not selects(one(manifests, "Deployment")["spec"]["selector"], labels):
        yield "the Deployment does not select its own pods"
    for constraint in pod(manifests)["spec"].get("topologySpreadConstraints", []):
        if not selects(constraint["labelSelector"], labels):
            yield f"the spread over {constraint['topologyKey']} selects no pod of ours"
    for manifest in manifests:
        if manifest["metadata"].get("labels", {}).get("app.kubernetes.io/name") != "vinegrape":
            yield f"{manifest['kind']} has no app.kubernetes.io/name"
        namespace = manifest["metadata"].get("namespace")
        if manifest["kind"] != "Namespace" and namespace != one(manifests, "Namespace")["metadata"]["name"]:
            yield f"{manifest['kind']} is in namespace {namespace}"


def settings_are_known(manifests: list[Manifest]) -> Iterator[str]:
    variables = environment(container(manifests))
    known = {f"VINEGRAPE_{name.upper()}" for name in fields()}
    for name, value in variables.items():
        if name.startswith("VINEGRAPE_") and name not in known:
            yield f"{name} is no setting"
        if "$(" in value:
            yield f"{name} is {value}: what it names is not set before it"
    try:
        ServeSettings.load({}, environment=variables)
    except SettingError as error:
        yield str(error)


def prometheus_finds_the_pods(manifests: list[Manifest]) -> Iterator[str]:
    """Google's kind is in no schema at hand: what is said of it is written out here."""
    for monitoring in of_kind(manifests, "PodMonitoring"):
        if monitoring["apiVersion"] != "monitoring.googleapis.com/v1":
            yield f"its version is {monitoring['apiVersion']}"
        if not selects(monitoring["spec"]["selector"], pod(manifests)["metadata"]["labels"]):
            yield "it selects no pod of ours"
        if monitoring["spec"]["endpoints"] != [{"port": "operations", "path": "/metrics", "interval": "30s"}]:
            yield f"it asks {monitoring['spec']['endpoints']}"


POLICIES: tuple[Policy, ...] = (
    nobody_is_root,
    the_pod_is_confined,
    no_token,
    images_are_pinned,
    ports_are_the_servers,
    services_reach_the_pods,
    probes_ask_the_operations_port,
    stops_in_time,
    resources_are_bounded,
    workers_have_cores,
    memory_fits,
    only_tmp_can_be_written,
    the_network_is_closed,
    the_autoscaler_rules_alone,
    a_node_can_be_emptied,
    labels_and_selectors_agree,
    settings_are_known,
    prometheus_finds_the_pods,
)
