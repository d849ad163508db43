"""The schemas that manifests must fit: Kubernetes' own, and Google's description of the Cloud Run API."""

import functools
from typing import Any

import jsonschema
import kubernetes_validate

from tests.k8s.manifests import MINIMUM_VERSION, Manifest
from tests.support import google_apis

OLDEST_KUBERNETES = ".".join(map(str, MINIMUM_VERSION))
NEWEST_KUBERNETES = kubernetes_validate.latest_version()
# Google's kinds that no installed schema describes; policies.prometheus_scrapes_the_pods checks them
WITHOUT_SCHEMA = {"PodMonitoring"}


def cloud_run_api() -> dict[str, Any]:
    """The schemas of the Cloud Run API, by name, in Google's format."""
    return google_apis.descriptions("run.v1")


@functools.cache
def _cloud_run_validator() -> jsonschema.Draft202012Validator:
    return google_apis.validator("run.v1", "Service", _is_ignored)


def validate_cloud_run(service: Manifest) -> None:
    """Check a Cloud Run service; fields that are unknown, or that Cloud Run ignores, are errors.

    Raises:
        jsonschema.ValidationError: the first error.
    """
    _cloud_run_validator().validate(service)


def _is_ignored(schema: dict[str, Any]) -> bool:
    return schema.get("description", "").removeprefix("Optional. ").startswith("Not supported by Cloud Run")
