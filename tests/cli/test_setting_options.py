"""The sources of a setting's value: option, variable, file or default."""

import json

import pytest

from tests.support.serve_settings import from_command_line, from_environment
from vinegrape_cli.setting_options import read_settings_file
from vinegrape_handler.errors import SettingError
from vinegrape_server.settings import ServeSettings, fields


@pytest.fixture
def config(tmp_path):
    """Write a settings file, and return the option that names it."""

    def write(text: str | bytes) -> str:
        path = tmp_path / "vinegrape.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return f"--config={path}"

    return write


def test_without_values_all_settings_have_their_defaults():
    assert from_command_line([], {}) == ServeSettings()


@pytest.mark.parametrize(("name", "in_worker"), [("rest_port", False), ("threads", True)])
def test_the_option_comes_before_the_variable_the_file_and_the_default(config, name, in_worker):
    option, variable, file = f"--{name.replace('_', '-')}=1", {f"VINEGRAPE_{name.upper()}": "2"}, config(f"{name} = 3")

    def value(arguments, environment) -> int:
        settings = from_command_line(arguments, environment)
        return getattr(settings.worker if in_worker else settings, name)

    assert value([file, option], variable) == 1
    assert value([file], variable) == 2
    assert value([file], {}) == 3
    assert value([], {}) == {"rest_port": 8080, "threads": 1}[name]


def test_each_setting_may_have_another_source(config):
    file = config('workers = 3\nbackend = "onnx_fp32"')
    settings = from_command_line([file, "--rest-port=1111"], {"VINEGRAPE_BATCH_SIZE": "5"})
    assert (settings.rest_port, settings.workers, settings.batch_size) == (1111, 3, 5)
    assert settings.worker.backend == "onnx_fp32"


def test_the_file_may_be_named_by_a_variable(config):
    path = config("workers = 3").partition("=")[2]
    assert from_environment({"VINEGRAPE_CONFIG": path}).workers == 3


def test_a_file_may_set_every_setting(config):
    values = {name: field.default for name, (_, field) in fields().items()}
    lines = (f"{name} = {json.dumps(value)}" for name, value in values.items())
    assert from_command_line([config("\n".join(lines))], {}) == ServeSettings()


def test_other_variables_are_ignored():
    assert from_environment({"VINEGRAPE_WORKER": "2", "VINEGRAPE_SERVICE_HOST": "10.0.0.1"}) == ServeSettings()


def test_the_variable_port_sets_the_rest_port_before_the_file(config):
    """Cloud Run sets PORT."""
    assert from_command_line([config("rest_port = 3")], {"PORT": "2"}).rest_port == 2
    assert from_environment({"PORT": "2", "VINEGRAPE_REST_PORT": "4"}).rest_port == 4
    assert from_command_line(["--rest-port=1"], {"PORT": "2"}).rest_port == 1


@pytest.mark.parametrize("variable", ["PORT", "AIP_HTTP_PORT"])
@pytest.mark.parametrize("source", [(["--edge"], {}), ([], {"VINEGRAPE_EDGE": "true"})])
def test_with_the_edge_the_variable_of_the_platform_sets_the_edges_port(source, variable):
    """Cloud Run sets PORT, and Vertex AI AIP_HTTP_PORT."""
    arguments, environment = source
    settings = from_command_line(arguments, {**environment, variable: "2"})
    assert (settings.edge_port, settings.rest_port) == (2, 8080)


# Errors name the source of the value


@pytest.mark.parametrize(
    ("variable", "name"),
    [("VINEGRAPE_WORKERS", "workers"), ("VINEGRAPE_REST_PORT", "rest_port"), ("PORT", "rest_port")],
)
def test_an_invalid_variable_is_named(variable, name):
    with pytest.raises(SettingError) as raised:
        from_environment({variable: "many"})
    assert str(raised.value) == f"Invalid value for {variable}: 'many' is not a valid integer."


def test_an_invalid_option_is_named():
    with pytest.raises(SettingError, match=r"^Invalid value for '--workers': 'many' is not a valid integer\.$"):
        from_command_line(["--workers=many"], {"VINEGRAPE_WORKERS": "3"})


@pytest.mark.parametrize("value", ["'many'", "1.5", "true", "[1]"])
def test_an_invalid_value_in_a_file_is_named_with_the_file(config, value):
    with pytest.raises(
        SettingError, match=r"Invalid value for workers in .*vinegrape\.toml: '.*' is not a valid integ"
    ):
        from_command_line([config(f"workers = {value}")], {})


def test_an_unknown_choice_in_a_file_is_reported_with_the_valid_ones(config):
    with pytest.raises(SettingError, match=r"backend in .*vinegrape\.toml: 'tflite' is not one of 'auto', 'onnx_int8'"):
        from_command_line([config('backend = "tflite"')], {})


# Files


def test_an_unknown_setting_is_reported_with_the_valid_ones(config):
    with pytest.raises(SettingError, match=r"vinegrape\.toml: unknown setting rest_prot\. Valid settings: archive, ed"):
        from_command_line([config("rest_port = 1\nrest_prot = 2")], {})
    with pytest.raises(SettingError, match=r"unknown settings colour, rest_prot\."):
        from_command_line([config("colour = 1\nrest_prot = 2")], {})


def test_a_table_is_an_unknown_setting(config):
    with pytest.raises(SettingError, match="unknown setting worker"):
        from_command_line([config("[worker]\nthreads = 1")], {})


@pytest.mark.parametrize("text", ["rest_port", "rest_port = ", "= 3", b"host = '\xff'"])
def test_a_file_that_is_no_toml_is_reported(config, text):
    with pytest.raises(SettingError, match=r"Cannot read the settings file .*vinegrape\.toml"):
        from_command_line([config(text)], {})


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(SettingError, match=r"Cannot read the settings file .*none\.toml.* No such file"):
        read_settings_file(tmp_path / "none.toml")
