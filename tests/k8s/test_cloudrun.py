"""The Cloud Run service fits Google's description of the API and the settings of the server."""

import re

import jsonschema
import pytest
import yaml

from tests.k8s.manifests import CLOUD_RUN, Manifest, environment, java_mebibytes, leaves, mebibytes
from tests.k8s.policies import JAVA_OTHER_MIB, PRIVATE_PORTS, STARTED_MIB, WORKER_MIB
from tests.k8s.schemas import cloud_run_api, validate_cloud_run
from tests.support.serve_settings import from_environment
from vinegrape_server.settings import ServeSettings

# From Cloud Run's container contract: seconds from SIGTERM to SIGKILL, and the longest startup probe
KILL_AFTER_S, LONGEST_STARTUP_S = 10, 240

DEFAULTS = ServeSettings()


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


def test_rest_is_the_only_port_and_probes_use_the_operations_port(server):
    assert server["ports"] == [{"name": "http1", "containerPort": DEFAULTS.rest_port}]
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


def test_settings_are_valid_and_fit_the_cores_and_the_time_to_stop(server):
    settings = from_environment({**environment(server), "PORT": "8080"})
    assert settings.workers == int(server["resources"]["limits"]["cpu"])
    assert settings.drain_timeout_s < KILL_AFTER_S


def test_the_memory_limit_covers_java_the_workers_and_tmp(server):
    workers = int(environment(server)["VINEGRAPE_WORKERS"])
    needed = java_mebibytes(server) + JAVA_OTHER_MIB + workers * WORKER_MIB + STARTED_MIB
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


def test_concurrency_and_timeout_fit_the_queue_and_the_response_timeout(revision):
    assert 1 <= revision["containerConcurrency"] <= DEFAULTS.queue_size
    assert revision["timeoutSeconds"] >= DEFAULTS.response_timeout_s


def test_the_service_does_not_run_as_the_default_account(revision):
    """The default service account may edit the whole project."""
    assert revision["serviceAccountName"].startswith("vinegrape@")
