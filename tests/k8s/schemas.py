"""The schemas that manifests must fit: Kubernetes' own, and Google's description of the Cloud Run API."""

import functools
import json
from importlib.resources import files
from typing import Any

import jsonschema
import kubernetes_validate

from tests.k8s.manifests import MINIMUM_VERSION, Manifest

OLDEST_KUBERNETES = ".".join(map(str, MINIMUM_VERSION))
NEWEST_KUBERNETES = kubernetes_validate.latest_version()
# Google's kinds that no installed schema describes; policies.prometheus_scrapes_the_pods checks them
WITHOUT_SCHEMA = {"PodMonitoring"}

# google-api-python-client contains the description
_DISCOVERY = files("googleapiclient") / "discovery_cache" / "documents" / "run.v1.json"


@functools.cache
def cloud_run_api() -> dict[str, Any]:
    """The schemas of the Cloud Run API, by name, in Google's format."""
    schemas: dict[str, Any] = json.loads(_DISCOVERY.read_text())["schemas"]
    return schemas


@functools.cache
def _cloud_run_validator() -> jsonschema.Draft202012Validator:
    definitions = {name: _strict(schema) for name, schema in cloud_run_api().items()}
    return jsonschema.Draft202012Validator({"$ref": "#/$defs/Service", "$defs": definitions})


def validate_cloud_run(service: Manifest) -> None:
    """Check a Cloud Run service; fields that are unknown, or that Cloud Run ignores, are errors.

    Raises:
        jsonschema.ValidationError: the first error.
    """
    _cloud_run_validator().validate(service)


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Convert a schema in Google's format to JSON Schema that allows no other fields."""
    if "$ref" in schema:
        return {"$ref": f"#/$defs/{schema['$ref']}"}
    strict = {key: schema[key] for key in ("type", "enum") if schema.get(key, "any") != "any"}
    strict |= {key: _strict(schema[key]) for key in ("items", "additionalProperties") if key in schema}
    if "properties" in schema:
        supported = {name: field for name, field in schema["properties"].items() if not _ignored(field)}
        strict["properties"] = {name: _strict(field) for name, field in supported.items()}
        strict["additionalProperties"] = False
    return strict


def _ignored(schema: dict[str, Any]) -> bool:
    return schema.get("description", "").removeprefix("Optional. ").startswith("Not supported by Cloud Run")
