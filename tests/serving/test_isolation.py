"""The addresses that a server listens on, and what its management refuses.

127.0.0.2 is another address of this machine. In these tests it stands for every address other than 127.0.0.1.
"""

import ipaddress
import shutil
import stat

import httpx
import psutil
import pytest

from tests.support.processes import descendants, temporary_folder
from tests.support.server import OPTIONAL_PORTS, listens, serving
from vinegrape_loadtests.local.server import free_port


def listening(live) -> set[tuple[str, int]]:
    """Addresses and ports that the processes of a server listen on."""
    found = set()
    for process in (psutil.Process(live.process.pid), *descendants(live.process)):
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                address = ipaddress.ip_address(connection.laddr.ip)
                mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
                found.add((str(mapped or address), connection.laddr.port))
    return found


def test_a_server_listens_on_this_machine_only_by_default(tiny_server):
    found = listening(tiny_server)
    assert {address for address, _ in found} == {"127.0.0.1"}
    assert {port for _, port in found} >= {
        tiny_server.ports[name] for name in ("rest_port", "grpc_port", "operations_port")
    }
    assert len(found) == 5  # two more for TorchServe's own gRPC, on any free ports


@pytest.mark.live
def test_management_stays_on_this_machine_when_host_is_every_address(tiny_archive, image, tmp_path):
    """Also tests an archive with a file name that TorchServe itself does not accept."""
    archive = shutil.copy(tiny_archive, tmp_path / "modèle, 2.mar")
    optional = {name: free_port() for name in OPTIONAL_PORTS}
    with serving(archive, tmp_path / "log", host="0.0.0.0", **optional) as live:
        assert live.post(image).status_code == 200
        names = ("rest_port", "grpc_port", "operations_port", *optional)
        assert {name: listens("127.0.0.2", live.ports[name]) for name in names} == {
            "rest_port": True, "grpc_port": True, "operations_port": False,
            "metrics_port": False, "management_port": False, "grpc_management_port": False,
        }  # fmt: skip
        assert all(listens("127.0.0.1", live.ports[name]) for name in names)


@pytest.fixture
def management(tiny_server) -> httpx.Client:
    """Requests to the private socket of TorchServe's management."""
    socket = temporary_folder(tiny_server.process) / "management.sock"
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://localhost") as client:
        yield client


def test_only_this_user_reaches_management(tiny_server):
    folder = temporary_folder(tiny_server.process)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "management.sock").is_socket()


def test_a_model_from_another_place_is_not_registered(management):
    """Registering a model would run its code."""
    for url in ("http://127.0.0.1:1/other.mar", "file:///etc/passwd", "../vinegrape.mar"):
        assert management.post("/models", params={"url": url}).status_code >= 400
    models = management.get("/models").json()["models"]
    assert [model["modelName"] for model in models] == ["vinegrape"]
