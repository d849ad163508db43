"""The rendered kustomizations."""

import pytest

from tests.k8s.manifests import FOLDERS, K8S, Manifests, render


@pytest.fixture(scope="session")
def rendered() -> dict[str, Manifests]:
    """Every kustomization of the repository, by its folder."""
    return {folder: render(K8S / folder) for folder in FOLDERS}
