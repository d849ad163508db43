import pytest
from prometheus_client import CollectorRegistry, generate_latest

from vinegrape_server.host.http import HttpResponse
from vinegrape_server.operations.torchserve_metrics import TorchServeMetrics
from vinegrape_server.torchserve.own_requests import OwnRequests

# As TorchServe 0.12 writes them, with its trailing commas
TORCHSERVE_TEXT = """\
# HELP Requests2XX Torchserve prometheus counter metric with unit: Count
# TYPE Requests2XX counter
Requests2XX{Level="Host",Hostname="vm",} 4.0
# HELP Requests5XX Torchserve prometheus counter metric with unit: Count
# TYPE Requests5XX counter
# HELP ts_inference_requests_total Torchserve prometheus counter metric with unit: Count
# TYPE ts_inference_requests_total counter
ts_inference_requests_total{model_name="vinegrape",model_version="default",hostname="vm",} 3.0
ts_inference_requests_total{model_name="vinegrape",model_version="1b75607327bf",hostname="vm",} 2.0
# HELP WorkerLoadTime Torchserve prometheus gauge metric with unit: Milliseconds
# TYPE WorkerLoadTime gauge
WorkerLoadTime{WorkerName="W-9000",Level="Host",Hostname="vm",} 750.0
WorkerLoadTime{WorkerName="W-9001",Level="Host",Hostname="vm",} 500.0
# HELP CPUUtilization Torchserve prometheus gauge metric with unit: Percent
# TYPE CPUUtilization gauge
CPUUtilization{Level="Host",Hostname="vm",} 50.0
# HELP MemoryUsed Torchserve prometheus gauge metric with unit: Megabytes
# TYPE MemoryUsed gauge
MemoryUsed{Level="Host",Hostname="vm",} 2.0
# HELP GPUMemoryUsed Torchserve prometheus gauge metric with unit: Megabytes
# TYPE GPUMemoryUsed gauge
GPUMemoryUsed{Level="Host",DeviceId="1",Hostname="vm",} 1.0
"""


@pytest.fixture
def registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(TorchServeMetrics(lambda: TORCHSERVE_TEXT, OwnRequests()))
    return registry


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("ts_http_responses_total", {"status": "2xx"}, 4),
        ("ts_inference_requests_total", {}, 5),
        ("ts_worker_load_time_seconds", {"worker": "W-9000"}, 0.75),
        ("ts_worker_load_time_seconds", {"worker": "W-9001"}, 0.5),
        ("ts_host_cpu_utilization_ratio", {}, 0.5),
        ("ts_host_memory_bytes", {"state": "used"}, 2 * 2**20),
        ("ts_host_gpu_memory_bytes", {"gpu": "1", "state": "used"}, 2**20),
    ],
)
def test_names_units_and_labels_are_translated(registry, name, labels, value):
    assert registry.get_sample_value(name, labels) == value


def test_metrics_without_samples_are_left_out(registry):
    text = generate_latest(registry).decode()
    assert "5xx" not in text
    assert "ts_host_disk_bytes" not in text


def test_without_a_response_there_are_no_metrics():
    def refuse():
        raise ConnectionRefusedError

    registry = CollectorRegistry()
    registry.register(TorchServeMetrics(refuse, OwnRequests()))
    assert generate_latest(registry) == b""


def test_the_servers_own_requests_are_subtracted():
    own, registry = OwnRequests(), CollectorRegistry()
    registry.register(TorchServeMetrics(lambda: TORCHSERVE_TEXT, own))
    own.count(lambda: HttpResponse(200, b""), prediction=True)
    own.count(lambda: HttpResponse(200, b""))
    assert registry.get_sample_value("ts_inference_requests_total") == 5 - 1
    assert registry.get_sample_value("ts_http_responses_total", {"status": "2xx"}) == 4 - 2


def test_counters_do_not_decrease_while_an_own_request_is_in_flight():
    """It is subtracted before TorchServe counts it."""
    own, registry = OwnRequests(), CollectorRegistry()
    registry.register(TorchServeMetrics(lambda: TORCHSERVE_TEXT, own))

    def send() -> HttpResponse:
        assert registry.get_sample_value("ts_inference_requests_total") == 5
        return HttpResponse(200, b"")

    assert registry.get_sample_value("ts_inference_requests_total") == 5
    own.count(send, prediction=True)


def test_every_series_is_unique(registry):
    series = [line.rpartition(" ")[0] for line in generate_latest(registry).decode().splitlines() if line[0] != "#"]
    assert len(series) == len(set(series))
