"""The addresses that a server listens on, and what the management port refuses.

127.0.0.2 is another address of this machine. In these tests it stands for every address other than 127.0.0.1.
"""

import shutil

import pytest

from tests.support.server import listens, serving


def test_a_server_listens_on_this_machine_only_by_default(tiny_server):
    assert all(listens("127.0.0.1", port) for port in tiny_server.ports.values())
    assert not any(listens("127.0.0.2", port) for port in tiny_server.ports.values())


@pytest.mark.live
def test_management_stays_on_this_machine_when_host_is_every_address(tiny_archive, image, tmp_path):
    """Also tests an archive with a file name that TorchServe itself does not accept."""
    archive = shutil.copy(tiny_archive, tmp_path / "modèle, 2.mar")
    with serving(archive, tmp_path / "log", host="0.0.0.0") as live:
        assert live.post(image).status_code == 200
        assert {name: listens("127.0.0.2", port) for name, port in live.ports.items()} == {
            "rest_port": True, "grpc_port": True, "operations_port": False,
            "metrics_port": False, "management_port": False, "grpc_management_port": False,
        }  # fmt: skip
        assert all(listens("127.0.0.1", port) for port in live.ports.values())


def test_a_model_from_another_place_is_not_registered(tiny_server):
    """Registering a model would run its code."""
    management = f"http://127.0.0.1:{tiny_server.ports['management_port']}/models"
    for url in ("http://127.0.0.1:1/other.mar", "file:///etc/passwd", "../vinegrape.mar"):
        assert tiny_server.client.post(management, params={"url": url}).status_code >= 400
    models = tiny_server.client.get(management).json()["models"]
    assert [model["modelName"] for model in models] == ["vinegrape"]
