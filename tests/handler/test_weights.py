import pytest

from vinegrape_handler.errors import SettingError
from vinegrape_handler.weights import BACKENDS, DEFAULT_WEIGHTS, WEIGHTS_FILES, available_backends, choose_backend


def test_every_backend_has_its_own_weights_file():
    assert tuple(WEIGHTS_FILES) == BACKENDS
    assert len(set(WEIGHTS_FILES.values())) == len(BACKENDS)
    assert set(DEFAULT_WEIGHTS) < set(BACKENDS)


def test_a_backend_is_available_if_its_weights_file_exists(tmp_path):
    assert available_backends(tmp_path) == ()
    (tmp_path / WEIGHTS_FILES["torchscript"]).touch()
    assert available_backends(tmp_path) == ("torchscript",)
    (tmp_path / WEIGHTS_FILES["onnx_fp32"]).mkdir()
    assert available_backends(tmp_path) == ("torchscript",)
    (tmp_path / WEIGHTS_FILES["onnx_int8"]).touch()
    assert available_backends(tmp_path) == ("onnx_int8", "torchscript")


@pytest.mark.parametrize(
    ("available", "on_gpu", "expected"),
    [
        (("onnx_int8", "onnx_fp32", "torchscript"), False, "onnx_int8"),
        (("onnx_int8", "onnx_fp32", "torchscript"), True, "torchscript"),
        (("onnx_fp32", "torchscript"), False, "onnx_fp32"),
        (("torchscript",), False, "torchscript"),
        (("onnx_int8",), True, "onnx_int8"),
    ],
)
def test_auto_chooses_by_device_and_available_weights(available, on_gpu, expected):
    assert choose_backend("auto", available, on_gpu) == expected


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_configured_backend_is_chosen_on_every_device(backend, on_gpu):
    assert choose_backend(backend, BACKENDS, on_gpu) == backend


def test_missing_weights_are_reported_with_those_that_are_available():
    with pytest.raises(SettingError, match="'onnx_fp32', but the archive holds the weights of: onnx_int8, torchscript"):
        choose_backend("onnx_fp32", ("onnx_int8", "torchscript"), on_gpu=False)


@pytest.mark.parametrize("setting", ["auto", "onnx_int8"])
def test_an_archive_without_weights_is_reported(setting):
    with pytest.raises(SettingError, match="holds the weights of: none"):
        choose_backend(setting, (), on_gpu=False)
