import json
import sys
from pathlib import Path

import pytest
import ts

from tests.support.archives import plan, write
from tests.support.metadata import METADATA
from vinegrape_handler.errors import SettingError
from vinegrape_handler.settings import WorkerSettings
from vinegrape_server.archive_info import ArchiveInfo
from vinegrape_server.plan import make_plan
from vinegrape_server.settings import ServeSettings
from vinegrape_server.torchserve import configuration
from vinegrape_server.worker import main


def properties(**values) -> dict[str, str]:
    """The keys and values of `config.properties` for these settings."""
    lines = configuration.properties(plan(**values), Path("/temporary")).splitlines()
    pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    assert len(dict(pairs)) == len(pairs)  # no key twice
    return dict(pairs)


# config.properties


def test_addresses():
    values = properties(rest_port=1, metrics_port=3, management_port=4, grpc_management_port=5)
    assert values["inference_address"] == "http://127.0.0.1:1"
    assert values["metrics_address"] == "http://127.0.0.1:3"
    assert values["management_address"] == "http://127.0.0.1:4"
    assert (values["grpc_management_address"], values["grpc_management_port"]) == ("127.0.0.1", "5")


def test_only_rest_follows_the_host():
    values = properties(host="0.0.0.0", management_port=4)
    assert values["inference_address"] == "http://0.0.0.0:8080"
    assert values["management_address"] == "http://127.0.0.1:4"


def test_behind_the_edge_rest_stays_on_this_machine():
    assert properties(host="0.0.0.0", edge=True)["inference_address"] == "http://127.0.0.1:8080"


def test_management_and_metrics_are_sockets_in_the_private_folder_by_default():
    values = properties(host="0.0.0.0")
    assert values["management_address"] == "unix:/temporary/management.sock"
    assert values["metrics_address"] == "unix:/temporary/metrics.sock"


def test_torchserves_own_grpc_servers_are_on_any_free_port_of_this_machine():
    values = properties(host="0.0.0.0")
    assert (values["grpc_inference_address"], values["grpc_inference_port"]) == ("127.0.0.1", "0")
    assert (values["grpc_management_address"], values["grpc_management_port"]) == ("127.0.0.1", "0")


def test_no_code_is_loaded_from_elsewhere():
    values = properties()
    assert values["allowed_urls"] == "none"
    assert values["install_py_dep_per_model"] == "false"
    assert values["enable_envvars_config"] == "false"


def test_the_model():
    values = properties(batch_size=4, max_batch_delay_ms=7, response_timeout_s=8, startup_timeout_s=9)
    assert values["load_models"] == "vinegrape.mar"
    assert json.loads(values["models"]) == {
        "vinegrape": {
            METADATA.version: {
                "defaultVersion": True,
                "marName": "vinegrape.mar",
                "minWorkers": 3,
                "maxWorkers": 3,
                "batchSize": 4,
                "maxBatchDelay": 7,
                "responseTimeout": 8,
                "startupTimeout": 9,
            }
        }
    }


def test_torchserves_request_limit_is_one_and_a_half_times_ours():
    assert properties(max_image_bytes=1000)["max_request_size"] == "1500"


def test_the_queue():
    assert properties(queue_size=7)["job_queue_size"] == "7"


def test_behind_the_edge_torchserves_queue_holds_more_than_the_edge_lets_through():
    """Also requests whose clients have left."""
    assert properties(edge=True, queue_size=7, batch_size=4)["job_queue_size"] == "1000"


@pytest.mark.parametrize("gpus", [0, 2])
def test_gpus(gpus):
    assert properties(gpus=gpus)["number_of_gpu"] == str(gpus)


def test_torchserve_gets_no_gpu_with_device_cpu():
    assert properties(gpus=2, device="cpu")["number_of_gpu"] == "0"


# Command and environment


def test_the_command(tmp_path):
    command = configuration.command(plan(), Path("/jre/bin/java"), tmp_path)
    assert command[0] == "/jre/bin/java"
    assert command[command.index("--model-store") + 1] == str(tmp_path / "store")
    assert command[command.index("--python") + 1] == sys.executable
    assert command[command.index("--ts-config-file") + 1] == str(tmp_path / "config.properties")
    assert f"-Djava.io.tmpdir={tmp_path}" in command
    assert Path(command[1].removeprefix("@")).name == "jvm.options"
    assert Path(command[1].removeprefix("@")).is_file()
    jars = Path(command[command.index("-cp") + 1])
    assert list(jars.parent.glob("*.jar"))
    (log4j,) = [part for part in command if part.startswith("-Dlog4j.configurationFile=file://")]
    assert Path(log4j.partition("file://")[2]).is_file()


@pytest.mark.parametrize(("gpus", "quick"), [(0, True), (2, False)])
def test_java_uses_only_its_quick_compiler_on_a_cpu(tmp_path, gpus, quick):
    command = configuration.command(plan(gpus=gpus), Path("java"), tmp_path)
    assert ("-XX:TieredStopAtLevel=1" in command) == quick


def environment(inherited=None, folder=Path("/temporary"), **values) -> dict[str, str]:
    return configuration.environment(plan(**values), folder, inherited or {})


def test_each_instance_has_its_own_temporary_folder():
    variables = environment({"TMPDIR": "/tmp", "TEMP": "/tmp"})
    assert (variables["TMPDIR"], variables["TEMP"]) == ("/temporary", "/temporary")


def java_options(inherited: str = "", **values) -> list[str]:
    return environment({"JAVA_TOOL_OPTIONS": inherited}, **values)["JAVA_TOOL_OPTIONS"].split()


def test_javas_direct_memory_holds_three_copies_of_the_largest_requests():
    """8 requests of 1.5 MB, or two batches of 8 for each of the 3 workers; and 64 MiB."""
    mib_64 = 64 * 1024
    assert f"-XX:MaxDirectMemorySize={mib_64 + 8 * 3 * 1_500_000 // 1024}k" in java_options(max_image_bytes=1_000_000)
    limit = f"-XX:MaxDirectMemorySize={mib_64 + 48 * 3 * 1_500_000 // 1024}k"
    assert limit in java_options(max_image_bytes=1_000_000, batch_size=8)


def test_only_the_edge_keeps_netty_from_leaking_forms():
    assert "-Dio.netty.allocator.type=unpooled" in java_options()
    assert "-Dio.netty.allocator.type=unpooled" not in java_options(edge=True)


def test_the_users_options_for_java_take_precedence():
    """Java takes the last one."""
    assert java_options("-XX:MaxDirectMemorySize=1g -Xmx1g")[-2:] == ["-XX:MaxDirectMemorySize=1g", "-Xmx1g"]


def test_the_workers_read_the_settings_of_the_plan():
    variables = environment({"VINEGRAPE_THREADS": "7", "HOME": "/home/someone"}, threads=2, max_instances=5)
    assert WorkerSettings.from_environment(variables) == WorkerSettings(
        "onnx_int8", "cpu", threads=2, decode_threads=1, max_instances=5
    )
    assert variables["OMP_NUM_THREADS"] == "2"
    assert variables["HOME"] == "/home/someone"


# The folder


def test_our_worker_replaces_torchserves_own(tmp_path):
    archive = ArchiveInfo(write(tmp_path / "vinegrape.mar"), METADATA, ("onnx_int8",))
    configuration.prepare(make_plan(ServeSettings(), archive, gpus=0, torch_installed=False), tmp_path)
    home = Path(environment({"TS_MODEL_SERVER_HOME": "/other"}, tmp_path)["TS_MODEL_SERVER_HOME"])
    assert (home / "ts" / "model_service_worker.py").samefile(main.__file__)
    for file in ("version.txt", "configs/metrics.yaml", "metrics/metric_collector.py"):
        assert (home / "ts" / file).samefile(Path(ts.__file__).parent / file)


def test_a_folder_with_a_path_too_long_for_a_socket_is_refused(tmp_path):
    with pytest.raises(SettingError, match=r"TorchServe's sockets allow at most 92\. Set TMPDIR"):
        configuration.prepare(plan(), tmp_path / ("x" * 100))


def test_a_folder_that_cannot_be_written_is_refused():
    with pytest.raises(SettingError, match=r"Cannot write to .*: No such file or directory. Set TMPDIR"):
        configuration.prepare(plan(), Path("/tmp/none"))
