"""An HTTP server with fixed responses stands in for TorchServe."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.archives import plan
from tests.support.metadata import METADATA
from vinegrape_handler.contract import SELF_CHECK_HEADER, SelfCheckAnswer
from vinegrape_loadtests.local.server import free_ports
from vinegrape_server.errors import ServeError
from vinegrape_server.torchserve.client import TorchServeClient

PASSED = SelfCheckAnswer(worker=123, version=METADATA.version).to_body(METADATA.name)


class TorchServe:
    """Responses by path, and the self-check tokens received."""

    def __init__(self) -> None:
        self.responses: dict[str, tuple[int, str]] = {}
        self.tokens: list[str | None] = []


@pytest.fixture
def torchserve():
    state = TorchServe()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.tokens.append(self.headers[SELF_CHECK_HEADER])
            status, body = state.responses.get(self.path, (404, "{}"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield state
        server.shutdown()


def client_of(torchserve, port_name: str) -> TorchServeClient:
    return TorchServeClient(plan(**{**free_ports(), port_name: torchserve.port}))


def test_any_response_to_a_ping_counts(torchserve):
    assert client_of(torchserve, "rest_port").ping()
    assert not TorchServeClient(plan(**free_ports())).ping()


def test_a_passed_self_check_returns_the_workers_pid(torchserve):
    torchserve.responses["/predictions/vinegrape"] = 200, json.dumps(PASSED)
    assert client_of(torchserve, "rest_port").self_check("token") == 123
    assert torchserve.tokens == ["token"]


@pytest.mark.parametrize(
    "response",
    [
        (200, json.dumps(PASSED | {"model": {"name": "vinegrape", "version": "another"}})),
        (404, '{"code": 404, "type": "ModelNotFoundException", "message": "Model not found"}'),
        (503, "no JSON"),
        (200, "[]"),
    ],
)
def test_another_response_is_no_passed_self_check(torchserve, response):
    torchserve.responses["/predictions/vinegrape"] = response
    assert client_of(torchserve, "rest_port").self_check("token") is None


def test_without_a_server_there_is_no_passed_self_check():
    assert TorchServeClient(plan(**free_ports())).self_check("token") is None


def test_a_handler_that_does_not_know_self_checks_is_reported(torchserve):
    torchserve.responses["/predictions/vinegrape"] = 400, "{}"
    with pytest.raises(ServeError, match=r"vinegrape\.mar is older than this server.*vinegrape archive OLD.mar NEW"):
        client_of(torchserve, "rest_port").self_check("token")


def test_queued_requests_are_read_from_the_management_port(torchserve):
    model = [{"modelName": "vinegrape", "jobQueueStatus": {"remainingCapacity": 98, "pendingRequests": 2}}]
    torchserve.responses["/models/vinegrape"] = 200, json.dumps(model)
    assert client_of(torchserve, "management_port").queued_requests() == 2


def test_the_metrics_text_needs_status_200(torchserve):
    torchserve.responses["/metrics"] = 200, "Requests2XX 4.0\n"
    assert client_of(torchserve, "metrics_port").metrics_text() == "Requests2XX 4.0\n"
    torchserve.responses["/metrics"] = 500, "error"
    with pytest.raises(OSError, match="status 500"):
        client_of(torchserve, "metrics_port").metrics_text()
