"""The rendered kustomizations."""

import pytest

from tests.k8s.manifests import FOLDERS, K8S, Manifest, render


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[Manifest]]:
    """Every kustomization of ours, by its folder."""
    return {folder: render(K8S / folder) for folder in FOLDERS}
