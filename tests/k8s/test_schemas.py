"""Every rendered object fits the Kubernetes schema of its kind, without unknown fields."""

import copy

import kubernetes_validate
import pytest

from tests.k8s.manifests import FOLDERS
from tests.k8s.schemas import NEWEST_KUBERNETES, OLDEST_KUBERNETES, WITHOUT_SCHEMA

pytestmark = pytest.mark.tools  # kubectl renders the manifests


@pytest.mark.parametrize("version", [OLDEST_KUBERNETES, NEWEST_KUBERNETES])
@pytest.mark.parametrize("folder", [*FOLDERS, "components"])
def test_every_object_fits_its_schema(folder, version, rendered):
    checked = [manifest for manifest in rendered[folder].objects if manifest["kind"] not in WITHOUT_SCHEMA]
    assert len(checked) == (10 if folder == "components" else 9)  # one more network policy
    for manifest in checked:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_is_an_error(rendered):
    deployment = copy.deepcopy(rendered["base"].one("Deployment"))
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 45
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(deployment, NEWEST_KUBERNETES, strict=True)


def test_older_versions_of_kubernetes_do_not_know_the_sleep_of_prestop(rendered):
    """This is why the manifests need version 1.30: before it, `sleep` needs a feature gate or does not exist."""
    assert rendered["base"].server["lifecycle"]["preStop"].keys() == {"sleep"}
    with pytest.raises(kubernetes_validate.ValidationError, match="sleep"):
        kubernetes_validate.validate(rendered["base"].one("Deployment"), "1.28", strict=True)
