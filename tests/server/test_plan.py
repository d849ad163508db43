import pytest

from tests.support.archives import info
from vinegrape_handler.errors import SettingError
from vinegrape_handler.weights import BACKENDS
from vinegrape_server.host.machine import count_cores
from vinegrape_server.plan import Plan, make_plan
from vinegrape_server.settings import ServeSettings


def plan(values=None, backends=BACKENDS, gpus=0, torch=True) -> Plan:
    return make_plan(ServeSettings.from_values(values or {}), info(*backends), gpus, torch)


def choice(**arguments) -> tuple[str, str, int]:
    """The chosen backend, device and number of GPUs."""
    chosen = plan(**arguments)
    return chosen.settings.worker.backend, chosen.settings.worker.device, chosen.gpus


# Backend and device


def test_auto_on_a_cpu_is_int8():
    assert choice() == ("onnx_int8", "cpu", 0)


def test_auto_on_gpus_is_torchscript():
    assert choice(gpus=2) == ("torchscript", "cuda", 2)


def test_auto_with_gpus_but_without_torch_uses_the_cpu():
    assert choice(gpus=2, torch=False) == ("onnx_int8", "cpu", 0)


def test_auto_with_gpus_but_without_torchscript_weights_uses_the_cpu():
    assert choice(gpus=1, backends=("onnx_int8",)) == ("onnx_int8", "cpu", 0)


def test_auto_takes_the_weights_that_the_archive_has():
    assert choice(backends=("onnx_fp32",)) == ("onnx_fp32", "cpu", 0)
    assert choice(backends=("torchscript",)) == ("torchscript", "cpu", 0)


def test_device_cpu_is_used_on_a_machine_with_a_gpu():
    assert choice(values={"device": "cpu"}, gpus=1) == ("onnx_int8", "cpu", 0)


def test_an_onnx_backend_uses_a_gpu_only_with_device_cuda():
    assert choice(values={"backend": "onnx_fp32"}, gpus=1) == ("onnx_fp32", "cpu", 0)
    assert choice(values={"backend": "onnx_fp32", "device": "cuda"}, gpus=1) == ("onnx_fp32", "cuda", 1)


def test_torchscript_without_torch_is_refused():
    with pytest.raises(SettingError, match=r"needs torch, which is not installed\. Run: pip install"):
        plan({"backend": "torchscript"}, torch=False)


def test_an_archive_with_only_torchscript_is_refused_without_torch():
    with pytest.raises(SettingError, match="needs torch"):
        plan(backends=("torchscript",), torch=False)


def test_device_cuda_without_a_gpu_is_refused():
    with pytest.raises(SettingError, match=r"device is cuda, but .* find no GPU .*\. Set device to cpu"):
        plan({"device": "cuda"})


def test_a_backend_without_weights_in_the_archive_is_refused():
    with pytest.raises(SettingError, match=r"'onnx_fp32'.*onnx_int8"):
        plan({"backend": "onnx_fp32"}, backends=("onnx_int8",))


def test_half_precision_is_refused_if_auto_chooses_a_cpu():
    with pytest.raises(SettingError, match="precision fp16"):
        plan({"precision": "fp16"})
    assert plan({"precision": "fp16"}, gpus=1).settings.worker.precision == "fp16"


# Workers, batches and threads


def automatic(chosen: Plan) -> tuple[int, int, int]:
    return chosen.settings.workers, chosen.settings.batch_size, chosen.settings.worker.decode_threads


def test_a_cpu_has_one_worker_per_core_and_no_batching():
    assert automatic(plan()) == (count_cores(), 1, 1)


def test_gpus_have_one_worker_each_batches_of_32_and_8_decode_threads():
    assert automatic(plan(gpus=3)) == (3, 32, 8)


def test_numbers_set_by_the_user_are_kept():
    assert automatic(plan({"workers": 5, "batch_size": 2, "decode_threads": 3}, gpus=1)) == (5, 2, 3)


# Abstention


def test_the_threshold_of_the_settings_is_that_of_the_plan():
    assert plan({"ood_threshold": "1.5"}).archive.metadata.ood_threshold == 1.5
    assert plan().archive.metadata.ood_threshold is None
