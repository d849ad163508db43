"""Every object against the schema of its kind, unknown fields refused."""

import copy

import kubernetes_validate
import pytest

from tests.k8s.manifests import FOLDERS, MINIMUM_VERSION, container, one

OLDEST = ".".join(map(str, MINIMUM_VERSION))
NEWEST = kubernetes_validate.latest_version()

# In no schema at hand: policies.prometheus_finds_the_pods says what it must be
UNKNOWN_KINDS = {"PodMonitoring"}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_fits_its_schema(folder, version, rendered):
    checked = [manifest for manifest in rendered[folder] if manifest["kind"] not in UNKNOWN_KINDS]
    for manifest in checked:
        kubernetes_validate.validate(manifest, version, strict=True)
    assert len(checked) == 9


def test_a_misspelt_field_is_found(rendered):
    deployment = copy.deepcopy(one(rendered["base"], "Deployment"))
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 45
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(deployment, NEWEST, strict=True)


def test_the_oldest_version_is_the_one_that_knows_sleep(rendered):
    """Before it, the field exists behind a feature gate at most."""
    deployment = one(rendered["base"], "Deployment")
    assert container(rendered["base"])["lifecycle"]["preStop"].keys() == {"sleep"}
    with pytest.raises(kubernetes_validate.ValidationError, match="sleep"):
        kubernetes_validate.validate(deployment, "1.28", strict=True)
