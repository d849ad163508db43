import json

import pytest

from tests.support.archives import plan
from tests.support.metadata import METADATA
from tests.support.torchserve import standing_in
from vinegrape_handler.contract import SelfCheckAnswer
from vinegrape_loadtests.local.server import free_ports
from vinegrape_server.errors import ServeError
from vinegrape_server.torchserve.client import TorchServeClient

PASSED = SelfCheckAnswer(worker=123, version=METADATA.version).to_body(METADATA.name)


@pytest.fixture
def torchserve():
    with standing_in() as stand_in:
        yield stand_in


@pytest.fixture
def client_of(torchserve, tmp_path):
    """Create a client that uses the stand-in for one port; no server listens on the others."""

    def create(port_name: str) -> TorchServeClient:
        return TorchServeClient(plan(**{**free_ports(), port_name: torchserve.port}), tmp_path)

    return create


def test_a_ping_counts_any_status_as_a_response(torchserve, client_of):
    assert client_of("rest_port").ping()
    assert not client_of("grpc_port").ping()


def test_a_passed_self_check_returns_the_workers_pid(torchserve, client_of):
    torchserve.responses["/predictions/vinegrape"] = 200, json.dumps(PASSED)
    assert client_of("rest_port").self_check("token") == 123
    assert torchserve.tokens == ["token"]


@pytest.mark.parametrize(
    "response",
    [
        (200, json.dumps(PASSED | {"model": {"name": "vinegrape", "version": "another"}})),
        (404, '{"code": 404, "type": "ModelNotFoundException", "message": "Model not found"}'),
        (503, "text"),
        (200, "[]"),
    ],
)
def test_any_other_response_is_no_passed_self_check(torchserve, client_of, response):
    torchserve.responses["/predictions/vinegrape"] = response
    assert client_of("rest_port").self_check("token") is None


def test_without_a_response_no_self_check_is_passed(torchserve, client_of):
    assert client_of("grpc_port").self_check("token") is None


def test_a_handler_that_does_not_know_self_checks_is_reported(torchserve, client_of):
    torchserve.responses["/predictions/vinegrape"] = 400, "{}"
    with pytest.raises(ServeError, match=r"vinegrape\.mar is older than this server.*vinegrape archive OLD\.mar NEW"):
        client_of("rest_port").self_check("token")


def test_queued_requests_are_read_from_the_management_port(torchserve, client_of):
    torchserve.set_queue(2)
    assert client_of("management_port").queued_requests() == 2


def test_the_metrics_text_needs_status_200(torchserve, client_of):
    torchserve.responses["/metrics"] = 200, "Requests2XX 4.0\n"
    assert client_of("metrics_port").metrics_text() == "Requests2XX 4.0\n"
    torchserve.responses["/metrics"] = 500, "error"
    with pytest.raises(OSError, match="status 500"):
        client_of("metrics_port").metrics_text()
