"""The rendered kustomizations."""

import pytest

from tests.k8s.manifests import COMPONENTS, FOLDERS, K8S, Manifests, render, render_with


@pytest.fixture(scope="session")
def rendered(tmp_path_factory) -> dict[str, Manifests]:
    """Every kustomization of the repository by its folder; "components": an overlay with all components."""
    kustomizations = {folder: render(K8S / folder) for folder in FOLDERS}
    return {**kustomizations, "components": render_with(COMPONENTS, tmp_path_factory.mktemp("components"))}
