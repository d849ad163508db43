import pytest

from vinegrape_handler.errors import SettingError
from vinegrape_handler.settings import WorkerSettings
from vinegrape_server.settings import ServeSettings, fields


def test_defaults():
    settings = ServeSettings()
    assert settings.host == "127.0.0.1"
    assert settings.ports == {
        "rest_port": 8080, "grpc_port": 7070, "operations_port": 8083,
        "metrics_port": 0, "management_port": 0, "grpc_management_port": 0,
    }  # fmt: skip


def test_values_by_name_are_divided_between_server_and_worker():
    settings = ServeSettings.from_values({"workers": 3, "backend": "onnx_fp32"})
    assert settings == ServeSettings(workers=3, worker=WorkerSettings(backend="onnx_fp32"))


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_out_of_range_is_refused(port):
    with pytest.raises(SettingError, match=f"grpc_port is {port}; a port must be between 1 and 65535"):
        ServeSettings(grpc_port=port)


@pytest.mark.parametrize("port", [1, 65535])
def test_the_first_and_the_last_port_are_accepted(port):
    assert ServeSettings(grpc_port=port).grpc_port == port


def test_two_equal_ports_are_refused():
    with pytest.raises(SettingError, match="metrics_port and grpc_port are both 9000; set different ports"):
        ServeSettings(metrics_port=9000, grpc_port=9000)


def test_a_port_equal_to_the_default_of_another_is_refused():
    with pytest.raises(SettingError, match="grpc_port and rest_port are both 7070"):
        ServeSettings(rest_port=7070)


@pytest.mark.parametrize(
    ("name", "minimum"),
    [
        ("workers", 0),
        ("batch_size", 0),
        ("max_batch_delay_ms", 1),  # TorchServe uses 100 ms for 0
        ("queue_size", 0),
        ("response_timeout_s", 1),
        ("startup_timeout_s", 1),
        ("drain_timeout_s", 0),
    ],
)
def test_the_smallest_value_is_accepted_and_a_smaller_one_refused(name, minimum):
    assert getattr(ServeSettings(**{name: minimum}), name) == minimum
    with pytest.raises(SettingError, match=f"{name} is {minimum - 1}; it must be at least {minimum}"):
        ServeSettings(**{name: minimum - 1})


def test_the_largest_batch_is_64():
    assert ServeSettings(batch_size=64).batch_size == 64
    with pytest.raises(SettingError, match="batch_size is 65; it must be at most 64"):
        ServeSettings(batch_size=65)


def test_the_request_limit_fits_torchserves_integer():
    assert ServeSettings.from_values({"max_image_bytes": 1_431_655_764}).max_request_bytes < 2**31
    with pytest.raises(SettingError, match="at most 1431655764"):
        ServeSettings.from_values({"max_image_bytes": 1_431_655_765})


def test_a_workers_setting_is_checked_too():
    with pytest.raises(SettingError, match="precision fp16"):
        ServeSettings.from_values({"precision": "fp16", "device": "cpu"})


def test_every_setting_has_a_meaning():
    for name, (_, field) in fields().items():
        assert field.metadata["meaning"], name


@pytest.mark.parametrize("name", ["host", "operations_host"])
def test_an_ipv6_host_is_refused_because_torchserve_misreads_it(name):
    with pytest.raises(SettingError, match=rf"^{name} is '::'"):
        ServeSettings(**{name: "::"})


def test_private_ports_are_optional_and_may_all_be_0():
    assert ServeSettings(metrics_port=0, management_port=0, grpc_management_port=0) == ServeSettings()
    with pytest.raises(SettingError, match="management_port is 70000; a port must be between 1 and 65535"):
        ServeSettings(management_port=70000)


def test_behind_the_edge_only_the_edge_and_operations_can_leave_this_machine():
    settings = ServeSettings(edge=True, host="192.0.2.1", operations_host="192.0.2.2")
    assert {name: settings.host_of(name) for name in settings.ports} == {
        "edge_port": "192.0.2.1", "rest_port": "127.0.0.1", "grpc_port": "127.0.0.1", "operations_port": "192.0.2.2",
        "metrics_port": "127.0.0.1", "management_port": "127.0.0.1", "grpc_management_port": "127.0.0.1",
    }  # fmt: skip


def test_without_the_edge_only_rest_grpc_and_operations_can_leave_this_machine():
    settings = ServeSettings(host="192.0.2.1", operations_host="192.0.2.2")
    assert {name: settings.host_of(name) for name in settings.ports} == {
        "rest_port": "192.0.2.1", "grpc_port": "192.0.2.1", "operations_port": "192.0.2.2",
        "metrics_port": "127.0.0.1", "management_port": "127.0.0.1", "grpc_management_port": "127.0.0.1",
    }  # fmt: skip
