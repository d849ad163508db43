"""Cloud Run's service against Google's own description of the API, which google-api-python-client carries."""

import copy
import json
import re
from importlib.resources import files

import jsonschema
import pytest
import yaml

from tests.k8s.manifests import CLOUD_RUN, Manifest, leaves, mebibytes
from tests.k8s.policies import JAVA_BESIDE_MIB, PRIVATE_PORTS, STARTED_MIB, WORKER_MIB
from vinegrape_server.settings import ServeSettings

DISCOVERY = files("googleapiclient") / "discovery_cache" / "documents" / "run.v1.json"

# Cloud Run's container contract: from SIGTERM to SIGKILL, and the longest that a startup probe may take
STOP_S, STARTUP_S = 10, 240


def described() -> Manifest:
    """The API's schemas as JSON Schema: no field but those described, and none that Cloud Run says it ignores."""
    return {name: strict(schema) for name, schema in json.loads(DISCOVERY.read_text())["schemas"].items()}


def strict(schema: Manifest) -> Manifest:
    if "$ref" in schema:
        return {"$ref": f"#/$defs/{schema['$ref']}"}
    made = {key: schema[key] for key in ("type", "enum") if schema.get(key, "any") != "any"}
    if "items" in schema:
        made["items"] = strict(schema["items"])
    if "additionalProperties" in schema:
        made["additionalProperties"] = strict(schema["additionalProperties"])
    if "properties" in schema:
        taken = {name: each for name, each in schema["properties"].items() if not ignored(each)}
        made |= {"properties": {name: strict(each) for name, each in taken.items()}, "additionalProperties": False}
    return made


def ignored(schema: Manifest) -> bool:
    return schema.get("description", "").removeprefix("Optional. ").startswith("Not supported by Cloud Run")


def validate(service: Manifest) -> None:
    schemas = described()
    jsonschema.validate(service, {"$ref": "#/$defs/Service", "$defs": schemas})


@pytest.fixture
def service() -> Manifest:
    return yaml.safe_load(CLOUD_RUN.read_text())


@pytest.fixture
def server(service) -> Manifest:
    (container,) = service["spec"]["template"]["spec"]["containers"]
    return container


def test_it_fits_the_api(service):
    validate(service)
    assert (service["apiVersion"], service["kind"]) == ("serving.knative.dev/v1", "Service")


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda s: s["spec"].update(replicas=2), "replicas"),
        (lambda s: s["spec"]["template"]["spec"].update(containerConcurrency="16"), "'16'"),
        (lambda s: s["spec"]["template"]["spec"]["containers"][0].update(securityContext={}), "securityContext"),
        (
            lambda s: s["spec"]["template"]["spec"]["containers"][0]["startupProbe"]["httpGet"].update(port="rest"),
            "'rest'",
        ),
    ],
    ids=["unknown", "type", "ignored", "port by name"],
)
def test_what_does_not_fit_the_api_is_found(spoil, complaint, service):
    broken = copy.deepcopy(service)
    spoil(broken)
    with pytest.raises(jsonschema.ValidationError, match=complaint):
        validate(broken)


def test_its_annotations_are_ones_that_the_api_knows(service):
    described = json.loads(DISCOVERY.read_text())["schemas"]["ObjectMeta"]["properties"]["annotations"]["description"]
    resources = dict(re.findall(r"`([a-z.-]+/[\w-]+)`: ([\w, ]+)\.", described))
    for kind, metadata in (("Service", service["metadata"]), ("Revision", service["spec"]["template"]["metadata"])):
        for name in metadata["annotations"]:
            assert kind in resources.get(name, ""), f"{name} belongs to {resources.get(name)}, not to a {kind}"


def test_the_one_port_is_rest_and_the_probes_ask_operations(server):
    defaults = ServeSettings()
    assert server["ports"] == [{"name": "http1", "containerPort": defaults.rest_port}]
    assert server["startupProbe"]["httpGet"] == {"path": "/readyz", "port": defaults.operations_port}
    assert server["livenessProbe"]["httpGet"] == {"path": "/livez", "port": defaults.operations_port}
    startup = server["startupProbe"]["periodSeconds"] * server["startupProbe"]["failureThreshold"]
    assert defaults.startup_timeout_s < startup <= STARTUP_S
    for probe in ("startupProbe", "livenessProbe"):
        assert server[probe]["timeoutSeconds"] < server[probe]["periodSeconds"]


def test_private_ports_are_not_named(service):
    assert not {str(value) for value in leaves(service)} & set(map(str, PRIVATE_PORTS))


def test_its_settings_are_known_and_fit_what_the_instance_has(server):
    variables = {each["name"]: each["value"] for each in server["env"]}
    settings = ServeSettings.load({}, environment={**variables, "PORT": "8080"})
    assert settings.workers == int(server["resources"]["limits"]["cpu"])
    assert settings.drain_timeout_s < STOP_S
    java = re.findall(r"-(?:Xmx|XX:MaxDirectMemorySize=)(\d+)m\b", variables["JAVA_TOOL_OPTIONS"])
    assert len(java) == 2
    needed = sum(map(int, java)) + JAVA_BESIDE_MIB + settings.workers * WORKER_MIB + STARTED_MIB
    assert mebibytes(server["resources"]["limits"]["memory"]) >= needed


def test_labels_are_such_as_google_cloud_takes(service):
    """Cloud Run makes them labels of the resource, whose rules are narrower than Kubernetes'."""
    for name, value in service["metadata"]["labels"].items():
        assert re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", name)
        assert re.fullmatch(r"[a-z0-9_-]{0,63}", value)


def test_it_scales_from_zero_to_a_bound_and_waits_no_longer_than_the_server(service):
    annotations, spec = service["spec"]["template"]["metadata"]["annotations"], service["spec"]["template"]["spec"]
    assert annotations["autoscaling.knative.dev/minScale"] == "0"
    assert 1 <= int(annotations["autoscaling.knative.dev/maxScale"]) <= 100
    assert annotations["run.googleapis.com/startup-cpu-boost"] == "true"
    assert 1 <= spec["containerConcurrency"] <= ServeSettings().queue_size
    assert spec["timeoutSeconds"] >= ServeSettings().response_timeout_s
    assert spec["serviceAccountName"].startswith("vinegrape@")  # the default account may edit the whole project
