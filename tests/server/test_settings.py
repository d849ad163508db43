import pytest

from vinegrape_handler.errors import SettingError
from vinegrape_server import settings as module
from vinegrape_server.settings import ServeSettings


@pytest.fixture
def config(tmp_path):
    """Writes a settings file."""

    def write(text):
        path = tmp_path / "vinegrape.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def load(options=None, config=None, environment=None) -> ServeSettings:
    return ServeSettings.load(options or {}, config, environment or {})


# Where a value comes from


def test_nothing_given_gives_the_defaults():
    settings = load()
    assert settings == ServeSettings()
    assert settings.host == "127.0.0.1"
    assert settings.ports == {
        "rest_port": 8080, "grpc_port": 7070, "operations_port": 8083,
        "metrics_port": 8082, "management_port": 8081, "grpc_management_port": 7071,
    }  # fmt: skip


@pytest.mark.parametrize(("name", "in_worker"), [("rest_port", False), ("threads", True)])
def test_an_option_wins_over_the_environment_that_over_the_file_that_over_the_default(config, name, in_worker):
    file, environment = config(f"{name} = 3"), {f"VINEGRAPE_{name.upper()}": "2"}

    def value(settings):
        return getattr(settings.worker if in_worker else settings, name)

    assert value(load({name: 1}, file, environment)) == 1
    assert value(load({}, file, environment)) == 2
    assert value(load({}, file)) == 3
    assert value(load()) == {"rest_port": 8080, "threads": 1}[name]


def test_each_setting_comes_from_where_it_is_set(config):
    settings = load({"rest_port": 1111}, config('workers = 3\nbackend = "onnx_fp32"'), {"VINEGRAPE_BATCH_SIZE": "5"})
    assert (settings.rest_port, settings.workers, settings.batch_size) == (1111, 3, 5)
    assert settings.worker.backend == "onnx_fp32"


def test_every_setting_of_a_file(config):
    values = {name: field.default for name, (_, field) in module.fields().items()}
    lines = (f"{name} = {value}" if isinstance(value, int) else f'{name} = "{value}"' for name, value in values.items())
    assert load({}, config("\n".join(lines))) == ServeSettings()


def test_a_variable_that_is_no_setting_is_left_alone():
    assert load({}, None, {"VINEGRAPE_WORKER": "2", "VINEGRAPE_SERVICE_HOST": "10.0.0.1"}) == ServeSettings()


# Files


def test_an_unknown_key_is_named_with_those_that_are_known(config):
    with pytest.raises(SettingError, match=r"sets colour, rest_prot, which nobody knows. Settings are: archive, host,"):
        load({}, config("rest_port = 1\nrest_prot = 2\ncolour = 3"))


def test_a_table_is_an_unknown_key(config):
    with pytest.raises(SettingError, match="sets worker"):
        load({}, config("[worker]\nthreads = 1"))


@pytest.mark.parametrize("text", ["rest_port", "rest_port = ", "= 3", b"host = '\xff'"])
def test_a_file_that_is_no_toml(config, text):
    with pytest.raises(SettingError, match=r"vinegrape\.toml cannot be read"):
        load({}, config(text))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SettingError, match=r"none\.toml cannot be read"):
        load({}, tmp_path / "none.toml")


@pytest.mark.parametrize("value", ["'many'", "1.5", "true", "[1]"])
def test_a_number_in_a_file_that_is_none(config, value):
    with pytest.raises(SettingError, match=r"workers in .*vinegrape\.toml is .*; it must be a whole number"):
        load({}, config(f"workers = {value}"))


# Values


def test_a_variable_that_is_no_number():
    with pytest.raises(SettingError, match="VINEGRAPE_REST_PORT is 'http'; it must be a whole number"):
        load(environment={"VINEGRAPE_REST_PORT": "http"})


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_out_of_range(port):
    with pytest.raises(SettingError, match=f"grpc_port is {port}; a port is between 1 and 65535"):
        load({"grpc_port": port})


@pytest.mark.parametrize("port", [1, 65535])
def test_the_first_and_the_last_port(port):
    assert load({"grpc_port": port}).grpc_port == port


def test_two_ports_that_are_the_same():
    with pytest.raises(SettingError, match="metrics_port and grpc_port are both 9000; give each its own"):
        load({"metrics_port": 9000, "grpc_port": 9000})


def test_a_port_that_is_anothers_default():
    with pytest.raises(SettingError, match="management_port and rest_port are both 8081"):
        load({"rest_port": 8081})


@pytest.mark.parametrize(
    ("name", "minimum"),
    [
        ("workers", 0),
        ("batch_size", 0),
        ("max_batch_delay_ms", 1),  # TorchServe takes 0 for 100
        ("queue_size", 1),
        ("response_timeout_s", 1),
        ("startup_timeout_s", 1),
    ],
)
def test_the_smallest_values(name, minimum):
    assert getattr(load({name: minimum}), name) == minimum
    with pytest.raises(SettingError, match=f"{name} is {minimum - 1}; it must be at least {minimum}"):
        load({name: minimum - 1})


def test_the_largest_batch():
    assert load({"batch_size": 64}).batch_size == 64
    with pytest.raises(SettingError, match="batch_size is 65; it must be at most 64"):
        load({"batch_size": 65})


def test_more_bytes_than_torchserve_can_be_told():
    assert load({"max_image_bytes": 1_431_655_764}).max_request_bytes < 2**31
    with pytest.raises(SettingError, match="at most 1431655764"):
        load({"max_image_bytes": 1_431_655_765})


def test_a_workers_setting_is_checked_too():
    with pytest.raises(SettingError, match="precision fp16"):
        load({"precision": "fp16", "device": "cpu"})


def test_every_setting_says_what_it_means():
    for name, (_, field) in module.fields().items():
        assert field.metadata["meaning"], name


@pytest.mark.parametrize("name", ["host", "operations_host"])
def test_an_ipv6_host_is_refused_before_torchserve_misreads_it(name):
    with pytest.raises(SettingError, match=rf"^{name} is '::'"):
        ServeSettings(**{name: "::"})


def test_addresses_of_ports():
    settings = ServeSettings(host="192.0.2.1", operations_host="192.0.2.2")
    assert {name: settings.host_of(name) for name in settings.ports} == {
        "rest_port": "192.0.2.1", "grpc_port": "192.0.2.1", "operations_port": "192.0.2.2",
        "metrics_port": "127.0.0.1", "management_port": "127.0.0.1", "grpc_management_port": "127.0.0.1",
    }  # fmt: skip


def test_the_variable_port_says_where_rest_listens_unless_ours_does(config):
    assert load({}, config("rest_port = 3"), {"PORT": "2"}).rest_port == 2
    assert load({}, None, {"PORT": "2", "VINEGRAPE_REST_PORT": "4"}).rest_port == 4
    assert load({"rest_port": 1}, None, {"PORT": "2"}).rest_port == 1
    with pytest.raises(SettingError, match="PORT is 'tcp'; it must be a whole number"):
        load({}, None, {"PORT": "tcp"})
