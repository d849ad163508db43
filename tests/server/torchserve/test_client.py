import json
import socket
import threading

import pytest

from tests.support.archives import plan
from tests.support.metadata import METADATA
from tests.support.torchserve import standing_in
from vinegrape_handler.contract import SelfCheckAnswer
from vinegrape_loadtests.local.server import free_ports
from vinegrape_server.errors import ServeError
from vinegrape_server.host.http import Address
from vinegrape_server.plan import Served
from vinegrape_server.torchserve.client import SelfCheckResult, TorchServeClient

PASSED = SelfCheckAnswer(worker=123, version=METADATA.version).to_body(METADATA.name)


@pytest.fixture
def torchserve():
    with standing_in() as stand_in:
        yield stand_in


@pytest.fixture
def client_of(torchserve, tmp_path):
    """Create a client that uses the stand-in for one port; no server listens on the others."""

    def create(port_name: str) -> TorchServeClient:
        return TorchServeClient(Served(plan(**{**free_ports(), port_name: torchserve.port})), tmp_path)

    return create


def test_a_ping_counts_any_status_as_a_response(torchserve, client_of):
    assert client_of("rest_port").ping()
    assert not client_of("grpc_port").ping()


def test_a_passed_self_check_returns_the_workers_pid(torchserve, client_of):
    torchserve.responses["/predictions/vinegrape"] = 200, json.dumps(PASSED)
    client = client_of("rest_port")
    assert client.first_self_check("token") == 123
    assert client.self_check("token") == SelfCheckResult(200, 123)
    assert torchserve.tokens == ["token", "token"]


def test_a_self_check_has_a_body_as_the_requests_of_clients_have(torchserve, client_of):
    """A TorchServe without memory for bodies still responds to GET."""
    torchserve.responses["POST /predictions/vinegrape"] = 200, json.dumps(PASSED)
    assert client_of("rest_port").self_check("token").worker == 123
    assert torchserve.bodies == [1_000_000]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, json.dumps(PASSED | {"model": {"name": "vinegrape", "version": "another"}})),
        (404, '{"code": 404, "type": "ModelNotFoundException", "message": "Model not found"}'),
        (503, "text"),
        (200, "[]"),
    ],
)
def test_any_other_response_is_no_passed_self_check(torchserve, client_of, status, body):
    torchserve.responses["/predictions/vinegrape"] = status, body
    assert client_of("rest_port").first_self_check("token") is None
    assert client_of("rest_port").self_check("token") == SelfCheckResult(status, None)


def test_without_a_response_no_self_check_is_passed(client_of):
    assert client_of("grpc_port").first_self_check("token") is None
    assert client_of("grpc_port").self_check("token") == SelfCheckResult(0, None)


def test_a_handler_that_takes_the_body_for_an_image_gets_no_body(torchserve, client_of):
    torchserve.responses["POST /predictions/vinegrape"] = 415, "{}"
    torchserve.responses["GET /predictions/vinegrape"] = 200, json.dumps(PASSED)
    client = client_of("rest_port")
    assert client.first_self_check("token") is None
    assert client.first_self_check("token") == 123
    assert client.self_check("token").worker == 123
    assert len(torchserve.bodies) == 1


def test_a_handler_that_does_not_know_self_checks_is_reported(torchserve, client_of):
    torchserve.responses["POST /predictions/vinegrape"] = 415, "{}"
    torchserve.responses["GET /predictions/vinegrape"] = 400, "{}"
    client = client_of("rest_port")
    assert client.first_self_check("token") is None
    with pytest.raises(ServeError, match=r"vinegrape\.mar is older than this server.*vinegrape archive OLD\.mar NEW"):
        client.first_self_check("token")


def test_behind_the_edge_self_checks_take_the_way_of_the_clients(torchserve, tmp_path):
    """Through the edge's socket for the server's own requests. Nothing listens there; the stand-in is TorchServe."""
    torchserve.responses["/predictions/vinegrape"] = 200, json.dumps(PASSED)
    entry = Address(str(tmp_path / "inner.sock"), 0)
    client = TorchServeClient(
        Served(plan(edge=True, **{**free_ports(), "rest_port": torchserve.port})), tmp_path, entry
    )
    assert client.first_self_check("token") == 123
    assert client.self_check("token") == SelfCheckResult(0, None)
    with socket.socket(socket.AF_UNIX) as inner:
        inner.bind(str(tmp_path / "inner.sock"))
        inner.listen()

        def respond():
            connection, _ = inner.accept()
            with connection, connection.makefile("rb") as received:
                while received.readline().strip():
                    pass
                received.read(1_000_000)
                connection.sendall(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=respond, daemon=True)
        thread.start()
        assert client.self_check("token") == SelfCheckResult(429, None)
        thread.join(30)


def test_own_requests_are_counted_by_what_torchserve_counts(torchserve, client_of):
    torchserve.set_queue(0)
    torchserve.responses["/predictions/vinegrape"] = 200, json.dumps(PASSED)
    client = client_of("rest_port")
    client.self_check("token")
    client.ping()  # 404
    torchserve.responses["/predictions/vinegrape"] = 503, "{}"
    client.self_check("token")
    torchserve.responses["/predictions/vinegrape"] = 404, "{}"
    client.self_check("token")
    own = client.own_requests
    assert {digit: own.responses(digit) for digit in "245"} == {"2": 1, "4": 2, "5": 1}
    assert own.predictions() == 2  # TorchServe does not count requests for a model that it does not have


def test_requests_without_a_response_are_not_counted(client_of):
    client = client_of("grpc_port")
    client.self_check("token")
    client.ping()
    assert client.own_requests.responses("2") == client.own_requests.predictions() == 0


def test_queued_requests_are_read_from_the_management_port(torchserve, client_of):
    torchserve.set_queue(2)
    assert client_of("management_port").queued_requests() == 2


def test_the_metrics_text_needs_status_200(torchserve, client_of):
    torchserve.responses["/metrics"] = 200, "Requests2XX 4.0\n"
    assert client_of("metrics_port").metrics_text() == "Requests2XX 4.0\n"
    torchserve.responses["/metrics"] = 500, "error"
    with pytest.raises(OSError, match="status 500"):
        client_of("metrics_port").metrics_text()
