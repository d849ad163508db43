import json
import sys
from pathlib import Path

import pytest
import ts

from tests.support.archives import info, write
from tests.support.metadata import METADATA
from vinegrape_handler.errors import SettingError
from vinegrape_handler.settings import WorkerSettings
from vinegrape_server.archive_info import ArchiveInfo
from vinegrape_server.plan import Plan, make_plan
from vinegrape_server.settings import ServeSettings
from vinegrape_server.torchserve import configuration
from vinegrape_server.worker import main


def plan(gpus=0, **options) -> Plan:
    settings = ServeSettings.load({"workers": 3, **options}, environment={})
    return make_plan(settings, info("onnx_int8", "torchscript"), gpus, torch_installed=True)


def properties(**options) -> dict[str, str]:
    lines = configuration.properties(plan(**options)).splitlines()
    pairs = [line.split("=", 1) for line in lines if line and not line.startswith("#")]
    assert len(dict(pairs)) == len(pairs)  # nothing is said twice
    return dict(pairs)


# config.properties


def test_addresses():
    said = properties(rest_port=1, grpc_port=2, metrics_port=3, management_port=4, grpc_management_port=5)
    assert said["inference_address"] == "http://127.0.0.1:1"
    assert (said["grpc_inference_address"], said["grpc_inference_port"]) == ("127.0.0.1", "2")
    assert said["metrics_address"] == "http://127.0.0.1:3"
    assert said["management_address"] == "http://127.0.0.1:4"
    assert (said["grpc_management_address"], said["grpc_management_port"]) == ("127.0.0.1", "5")


def test_management_and_metrics_stay_on_this_machine_whatever_the_host():
    said = properties(host="0.0.0.0")
    assert said["inference_address"] == "http://0.0.0.0:8080"
    assert said["grpc_inference_address"] == "0.0.0.0"
    assert said["metrics_address"] == "http://127.0.0.1:8082"
    assert said["management_address"] == "http://127.0.0.1:8081"
    assert said["grpc_management_address"] == "127.0.0.1"


def test_no_code_from_elsewhere():
    said = properties()
    assert said["allowed_urls"] == "none"
    assert said["install_py_dep_per_model"] == "false"
    assert said["enable_envvars_config"] == "false"


def test_the_model():
    said = properties(batch_size=4, max_batch_delay_ms=7, response_timeout_s=8, startup_timeout_s=9)
    assert said["load_models"] == "vinegrape.mar"
    assert json.loads(said["models"]) == {
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


def test_torchserves_own_limit_is_well_above_ours():
    assert properties(max_image_bytes=1000)["max_request_size"] == "1500"


def test_the_queue():
    assert properties(queue_size=7)["job_queue_size"] == "7"


@pytest.mark.parametrize("gpus", [0, 2])
def test_gpus(gpus):
    assert properties(gpus=gpus)["number_of_gpu"] == str(gpus)


def test_a_gpu_that_is_not_used_is_not_shown():
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
def test_java_compiles_quickly_where_a_cpu_is_busy_with_the_network(tmp_path, gpus, quick):
    command = configuration.command(plan(gpus=gpus), Path("java"), tmp_path)
    assert ("-XX:TieredStopAtLevel=1" in command) == quick


def environment(inherited=None, folder=Path("/temporary"), **options) -> dict[str, str]:
    return configuration.environment(plan(**options), folder, inherited or {})


def test_each_instance_has_its_own_temporary_folder():
    made = environment({"TMPDIR": "/tmp", "TEMP": "/tmp"})
    assert (made["TMPDIR"], made["TEMP"]) == ("/temporary", "/temporary")


def test_the_workers_read_back_what_was_settled():
    made = environment({"VINEGRAPE_THREADS": "7", "HOME": "/home/someone"}, threads=2, max_instances=5)
    assert WorkerSettings.from_environment(made) == WorkerSettings("onnx_int8", "cpu", threads=2, max_instances=5)
    assert made["OMP_NUM_THREADS"] == "2"
    assert made["HOME"] == "/home/someone"


# The folder


def test_our_worker_has_the_place_of_torchserves_own(tmp_path):
    archive = ArchiveInfo(write(tmp_path / "vinegrape.mar"), METADATA, ("onnx_int8",))
    configuration.prepare(make_plan(ServeSettings(), archive, gpus=0, torch_installed=False), tmp_path)
    home = Path(environment({"TS_MODEL_SERVER_HOME": "/other"}, tmp_path)["TS_MODEL_SERVER_HOME"])
    assert (home / "ts" / "model_service_worker.py").samefile(main.__file__)
    for file in ("version.txt", "configs/metrics.yaml", "metrics/metric_collector.py"):
        assert (home / "ts" / file).samefile(Path(ts.__file__).parent / file)


# What stands in the way


def test_a_temporary_folder_whose_name_is_too_long_for_a_socket(tmp_path):
    with pytest.raises(SettingError, match="too long a name for TorchServe's sockets"):
        configuration.prepare(plan(), tmp_path / ("x" * 100))


def test_a_temporary_folder_that_cannot_be_written():
    with pytest.raises(SettingError, match=r"Cannot write to .*: No such file or directory. Set TMPDIR"):
        configuration.prepare(plan(), Path("/tmp/none"))
