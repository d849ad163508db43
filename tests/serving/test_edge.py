"""The whole way: a client, HAProxy, TorchServe, a worker."""

import json
import subprocess

import grpc
import httpx
import pytest

from tests.conftest import ROOT, program
from tests.support.payloads import instances
from tests.support.server import Live, serving, wait_until
from vinegrape_client.inference_pb2 import PredictionsRequest
from vinegrape_client.inference_pb2_grpc import InferenceAPIsServiceStub

pytestmark = [pytest.mark.live, pytest.mark.tools, pytest.mark.xdist_group("edge_server")]


@pytest.fixture(scope="module")
def edge_server(tiny_archive, tmp_path_factory):
    """The model of `tiny_archive`, served with one worker behind the edge."""
    program("haproxy", "haproxy")
    with serving(tiny_archive, tmp_path_factory.mktemp("edge_server") / "log", edge=True) as live:
        yield live


def url(live: Live, path: str = "/predictions/vinegrape") -> str:
    return f"http://127.0.0.1:{live.ports['edge_port']}{path}"


def test_an_image_is_classified(edge_server, image):
    response = httpx.post(url(edge_server), content=image)
    assert response.status_code == 200
    assert (response.json()["label"], response.json()["probability"]) == ("Ak", 0.75)


@pytest.mark.parametrize(
    "arguments",
    [
        ("-T", "FILE"),
        ("--data-binary", "@FILE"),
        ("-H", "Expect: 100-continue", "-H", "Content-Type:", "--data-binary", "@FILE"),
    ],
)
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1", "--http2-prior-knowledge"])
def test_the_ways_in_which_curl_sends_a_file(edge_server, image, tmp_path, arguments, version):
    (tmp_path / "red.png").write_bytes(image)
    arguments = [argument.replace("FILE", str(tmp_path / "red.png")) for argument in arguments]
    command = [program("curl", "curl"), "-sS", "-m", "20", version, *arguments, url(edge_server)]
    assert json.loads(subprocess.run(command, capture_output=True, check=True).stdout)["label"] == "Ak"


@pytest.mark.parametrize("path", ["/predictions/vinegrape", "/v1/models/vinegrape:predict"])
def test_instances_on_both_paths(edge_server, image, path):
    (prediction,) = httpx.post(url(edge_server, path), content=instances(image)).json()["predictions"]
    assert prediction["label"] == "Ak"


def test_the_description_of_the_model(edge_server):
    response = httpx.get(url(edge_server), headers={"accept": "application/json"})
    assert response.json()["name"] == "vinegrape"
    head = httpx.head(url(edge_server), headers={"accept": "application/json"})
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == response.headers["content-length"]


def test_ping_and_an_error_of_the_handler(edge_server):
    assert httpx.get(url(edge_server, "/ping")).json() == {"status": "Healthy"}
    response = httpx.post(url(edge_server), content=b"no image")
    assert (response.status_code, response.json()["error"]["type"]) == (415, "unsupported_format")


def test_server_timing_and_the_times_of_the_access_log(edge_server, image):
    """REST and gRPC: the worker's times reach the client and the log."""
    response = httpx.post(url(edge_server), content=image, headers={"x-request-id": "timed-rest"})
    names = [part.partition(";dur=")[0] for part in response.headers["server-timing"].split(", ")]
    assert names == ["queue", "decode", "inference", "total"]
    with grpc.insecure_channel(f"127.0.0.1:{edge_server.ports['edge_port']}") as channel:
        predict = InferenceAPIsServiceStub(channel).Predictions
        request = PredictionsRequest(model_name="vinegrape", input={"data": image})
        _, call = predict.with_call(request, metadata=[("x-request-id", "timed-grpc")])
    metadata = dict(call.initial_metadata())
    assert metadata["server-timing"].startswith("decode;dur=")
    assert not [name for name in metadata if name.startswith("x-vinegrape")]
    for request_id in ("timed-rest", "timed-grpc"):
        wait_until(lambda name=request_id: name in edge_server.log.read_text())
        (line,) = [line for line in edge_server.log.read_text().splitlines() if request_id in line]
        entry = json.loads(line)
        assert 0 <= entry["queue_ms"] <= entry["total_ms"]
        assert 0 < entry["decode_ms"] + entry["inference_ms"] <= entry["total_ms"] + 1
    metrics = edge_server.metrics()
    assert metrics["vinegrape_response_seconds_count", "rest"] >= 1
    assert metrics["vinegrape_response_seconds_count", "grpc"] >= 1
    assert metrics["vinegrape_queue_seconds_count", "grpc"] >= 1
    assert 'haproxy_frontend_http_requests_total{proxy="public"}' in edge_server.operations("/metrics/haproxy").text


def test_the_image_of_readme_is_logged_and_counted_without_its_content(edge_server):
    before = edge_server.metrics().get(("vinegrape_responses_total", "", "200", "rest"), 0)
    content = (ROOT / "docs" / "leaf.png").read_bytes()
    response = httpx.post(url(edge_server), content=content, headers={"x-request-id": "leaf-of-readme"})
    assert response.headers["x-request-id"] == "leaf-of-readme"

    def lines():
        return [line for line in edge_server.log.read_text().splitlines() if "leaf-of-readme" in line]

    wait_until(lines)
    (line,) = lines()
    entry = json.loads(line)
    assert (entry["status"], entry["error"]) == (200, "")
    assert entry["bytes_in"] > len(content)
    assert len(line) < 600
    assert edge_server.metrics()[("vinegrape_responses_total", "", "200", "rest")] >= before + 1
