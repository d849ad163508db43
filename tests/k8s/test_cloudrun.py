"""The Cloud Run service fits Google's description of the API and the settings of the server."""

import re

import jsonschema
import pytest
import yaml

from tests.k8s.manifests import (
    CLOUD_RUN,
    Manifest,
    environment,
    java_mebibytes,
    kustomize,
    leaves,
    mebibytes,
)
from tests.k8s.policies import (
    DEFAULTS,
    IMAGE,
    JAVA_OTHER_MIB,
    LARGE_UPLOADS,
    PRIVATE_PORTS,
    SECRETS,
    STARTED_MIB,
    WORKER_MIB,
    edge_mebibytes,
    gateway_mebibytes,
)
from tests.k8s.schemas import cloud_run_api, validate_cloud_run
from tests.support.archives import info
from tests.support.serve_settings import from_environment
from vinegrape_server.plan import Plan, make_plan
from vinegrape_server.settings import ServeSettings

# From Cloud Run's container contract: seconds from SIGTERM to SIGKILL, and the longest startup probe
KILL_AFTER_S, LONGEST_STARTUP_S = 10, 240
# Seconds for which Google's load balancers keep an idle connection
IDLE_S = 600


@pytest.fixture
def service() -> Manifest:
    return yaml.safe_load(CLOUD_RUN.read_text())


@pytest.fixture
def revision(service) -> Manifest:
    return service["spec"]["template"]["spec"]


@pytest.fixture
def server(revision) -> Manifest:
    (container,) = revision["containers"]
    return container


@pytest.fixture
def settings(server) -> ServeSettings:
    """The settings of the server in the container: Cloud Run sets PORT."""
    (port,) = server["ports"]
    return from_environment({**IMAGE.environment, **environment(server), "PORT": str(port["containerPort"])})


@pytest.fixture
def plan(settings) -> Plan:
    return make_plan(settings, info("onnx_int8"), gpus=0, torch_installed=False)


def test_the_service_fits_the_api(service):
    validate_cloud_run(service)
    assert (service["apiVersion"], service["kind"]) == ("serving.knative.dev/v1", "Service")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda service, revision, server: service["spec"].update(replicas=2), "replicas"),
        (lambda service, revision, server: revision.update(containerConcurrency="16"), "'16'"),
        (lambda service, revision, server: server.update(securityContext={}), "securityContext"),
        (lambda service, revision, server: server["startupProbe"]["httpGet"].update(port="rest"), "'rest'"),
    ],
    ids=["unknown field", "wrong type", "field that Cloud Run ignores", "port by name"],
)
def test_a_field_that_the_api_rejects_is_an_error(change, message, service, revision, server):
    change(service, revision, server)
    with pytest.raises(jsonschema.ValidationError, match=message):
        validate_cloud_run(service)


def test_the_api_documents_every_annotation_for_its_resource(service):
    description = cloud_run_api()["ObjectMeta"]["properties"]["annotations"]["description"]
    resources = dict(re.findall(r"`([a-z.-]+/[\w-]+)`: ([\w, ]+)\.", description))
    for kind, metadata in (("Service", service["metadata"]), ("Revision", service["spec"]["template"]["metadata"])):
        for name in metadata["annotations"]:
            assert kind in resources.get(name, ""), f"{name} is documented for {resources.get(name)}, not for {kind}"


def test_the_edge_is_the_only_port_and_probes_use_the_operations_port(server):
    """`h2c`: Cloud Run sends HTTP/2 without TLS, which gRPC needs."""
    assert server["ports"] == [{"name": "h2c", "containerPort": DEFAULTS.edge_port}]
    assert server["startupProbe"]["httpGet"] == {"path": "/readyz", "port": DEFAULTS.operations_port}
    assert server["livenessProbe"]["httpGet"] == {"path": "/livez", "port": DEFAULTS.operations_port}


def test_the_startup_probe_waits_longer_than_the_server_may_take_to_start(server):
    probe = server["startupProbe"]
    assert DEFAULTS.startup_timeout_s < probe["periodSeconds"] * probe["failureThreshold"] <= LONGEST_STARTUP_S


@pytest.mark.parametrize("probe", ["startupProbe", "livenessProbe"])
def test_a_probe_ends_before_the_next_one_starts(probe, server):
    assert server[probe]["timeoutSeconds"] < server[probe]["periodSeconds"]


def test_private_ports_are_not_used(service):
    assert not {str(value) for value in leaves(service)} & set(map(str, PRIVATE_PORTS))


def test_settings_are_valid_and_fit_the_cores_and_the_time_to_stop(server, settings):
    assert settings.edge
    assert settings.edge_port == DEFAULTS.edge_port
    assert settings.workers == int(server["resources"]["limits"]["cpu"])
    assert settings.drain_timeout_s < KILL_AFTER_S


def test_the_memory_limit_covers_all_processes_and_tmp(server, plan):
    java, workers = java_mebibytes(server) + JAVA_OTHER_MIB, plan.settings.workers * WORKER_MIB
    needed = java + workers + edge_mebibytes(plan) + gateway_mebibytes(plan) + STARTED_MIB
    assert mebibytes(server["resources"]["limits"]["memory"]) >= needed


def test_labels_follow_the_rules_of_google_cloud(service):
    """Cloud Run copies them to the Google Cloud resource, whose labels allow fewer characters than Kubernetes'."""
    for name, value in service["metadata"]["labels"].items():
        assert re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", name)
        assert re.fullmatch(r"[a-z0-9_-]{0,63}", value)


def test_the_service_scales_from_zero_to_a_limit(service):
    annotations = service["spec"]["template"]["metadata"]["annotations"]
    assert annotations["autoscaling.knative.dev/minScale"] == "0"
    assert 1 <= int(annotations["autoscaling.knative.dev/maxScale"]) <= 100
    assert annotations["run.googleapis.com/startup-cpu-boost"] == "true"


def test_the_edge_takes_every_request_that_cloud_run_sends(revision, plan):
    """Otherwise an instance would refuse requests while Cloud Run could start another."""
    assert 1 <= revision["containerConcurrency"] <= plan.slots + plan.settings.queue_size
    assert revision["containerConcurrency"] <= LARGE_UPLOADS


def test_the_edge_ends_a_slow_request_before_cloud_run_does(revision, settings):
    assert revision["timeoutSeconds"] > settings.upload_timeout_s + settings.deadline_ms / 1000


def test_the_edge_keeps_idle_connections_longer_than_its_client(settings):
    """The only client is Google's proxy. It would send a request on a connection that the edge is closing."""
    assert settings.keep_alive_timeout_s > IDLE_S


@pytest.mark.tools
def test_the_kustomization_only_adds_api_keys(service, server):
    with_keys = yaml.safe_load(kustomize(CLOUD_RUN.parent))
    validate_cloud_run(with_keys)
    revision = with_keys["spec"]["template"]["spec"]
    (container,) = revision["containers"]
    folder = f"{SECRETS}api-keys"
    assert revision.pop("volumes") == [
        {
            "name": "api-keys",
            "secret": {"secretName": "vinegrape-api-keys", "items": [{"key": "latest", "path": "api-keys"}]},
        }
    ]
    assert container.pop("volumeMounts") == [{"name": "api-keys", "mountPath": folder}]
    assert container["env"].pop() == {"name": "VINEGRAPE_API_KEYS", "value": f"{folder}/api-keys"}
    assert with_keys == service


def test_the_service_does_not_run_as_the_default_account(revision):
    """The default service account may edit the whole project."""
    assert revision["serviceAccountName"].startswith("vinegrape@")
