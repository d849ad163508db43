import os

import pytest
import torch

from tests.support.archives import info
from vinegrape_handler.errors import SettingError
from vinegrape_handler.weights import BACKENDS
from vinegrape_server import plan as module
from vinegrape_server.plan import Plan, make_plan
from vinegrape_server.settings import ServeSettings

CORES = len(os.sched_getaffinity(0))


def plan(options=None, held=BACKENDS, gpus=0, torch=True) -> Plan:
    return make_plan(ServeSettings.load(options or {}, environment={}), info(*held), gpus, torch)


def settled(**arguments) -> tuple:
    made = plan(**arguments)
    return made.worker.backend, made.worker.device, made.gpus


# Backend and device


def test_auto_on_a_cpu_is_int8():
    assert settled() == ("onnx_int8", "cpu", 0)


def test_auto_on_gpus_is_torchscript():
    assert settled(gpus=2) == ("torchscript", "cuda", 2)


def test_auto_with_gpus_and_no_torch_stays_on_the_cpu():
    assert settled(gpus=2, torch=False) == ("onnx_int8", "cpu", 0)


def test_auto_with_gpus_and_no_torchscript_stays_on_the_cpu():
    assert settled(gpus=1, held=("onnx_int8",)) == ("onnx_int8", "cpu", 0)


def test_auto_takes_what_the_archive_holds():
    assert settled(held=("onnx_fp32",)) == ("onnx_fp32", "cpu", 0)
    assert settled(held=("torchscript",)) == ("torchscript", "cpu", 0)


def test_a_cpu_that_is_asked_for_is_used_beside_a_gpu():
    assert settled(options={"device": "cpu"}, gpus=1) == ("onnx_int8", "cpu", 0)


def test_onnx_that_is_asked_for_stays_on_the_cpu_unless_the_gpu_is_too():
    assert settled(options={"backend": "onnx_fp32"}, gpus=1) == ("onnx_fp32", "cpu", 0)
    assert settled(options={"backend": "onnx_fp32", "device": "cuda"}, gpus=1) == ("onnx_fp32", "cuda", 1)


def test_torchscript_without_torch():
    with pytest.raises(SettingError, match=r"needs torch, which is not installed here\. Run: pip install"):
        plan({"backend": "torchscript"}, torch=False)


def test_an_archive_of_torchscript_alone_without_torch():
    with pytest.raises(SettingError, match="needs torch"):
        plan(held=("torchscript",), torch=False)


def test_a_gpu_that_is_not_there():
    with pytest.raises(SettingError, match=r"no GPU can be used here: .* Set device to cpu"):
        plan({"device": "cuda"})


def test_missing_weights():
    with pytest.raises(SettingError, match="'onnx_fp32', but the archive holds the weights of: onnx_int8"):
        plan({"backend": "onnx_fp32"}, held=("onnx_int8",))


def test_half_precision_that_ends_on_a_cpu():
    """Asked for with everything else "auto", on a machine without a GPU."""
    with pytest.raises(SettingError, match="precision fp16 is for backend torchscript on device cuda"):
        plan({"precision": "fp16"})
    assert plan({"precision": "fp16"}, gpus=1).worker.precision == "fp16"


# Workers and batches


def test_on_a_cpu_a_worker_a_core_and_batches_of_8():
    made = plan()
    assert (made.workers, made.batch_size) == (CORES, 1)


def test_on_gpus_a_worker_a_gpu_and_batches_of_32():
    made = plan(gpus=3)
    assert (made.workers, made.batch_size) == (3, 32)


def test_numbers_that_are_given_stay():
    made = plan({"workers": 5, "batch_size": 2}, gpus=1)
    assert (made.workers, made.batch_size) == (5, 2)


# The machine


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, CORES),
        ({"cpu.max": "max 100000\n"}, CORES),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": f"{100000 * CORES - 50000} 100000\n"}, CORES),
        ({"cpu.max": "6400000 100000\n"}, CORES),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, CORES),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_a_containers_limit_is_as_many_cores_as_it_pays_for(tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert module.count_cores(tmp_path) == cores


def lay_driver(folder, monkeypatch, script):
    """Put an nvidia-smi on PATH that is this shell script."""
    smi = folder / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\n{script}\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")


def test_gpus_are_counted_as_the_driver_lists_them(tmp_path, monkeypatch):
    lay_driver(tmp_path, monkeypatch, "echo 'GPU 0: H200 (UUID: a)'\necho '  MIG 1g'\necho 'GPU 1: H200 (UUID: b)'")
    assert module.count_gpus(ask_torch=False) == 2
    assert module.count_gpus(ask_torch=True) == torch.cuda.device_count()


def test_a_driver_that_fails_shows_no_gpu(tmp_path, monkeypatch):
    lay_driver(tmp_path, monkeypatch, "echo 'GPU access blocked by the operating system'\nexit 9")
    assert module.count_gpus(ask_torch=False) == 0


def test_no_driver_is_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert module.count_gpus(ask_torch=False) == 0


def test_torch_is_installed_here():
    assert module.torch_installed()
