import pytest

from vinegrape_handler.errors import SettingError
from vinegrape_handler.settings import WorkerSettings


def test_an_empty_environment_gives_the_defaults():
    settings = WorkerSettings.from_environment({})
    assert settings == WorkerSettings()
    assert (settings.backend, settings.device, settings.precision, settings.threads) == ("auto", "auto", "fp32", 1)


def test_every_setting_is_read_from_its_variable():
    environment = {
        "VINEGRAPE_BACKEND": "torchscript",
        "VINEGRAPE_DEVICE": "cuda",
        "VINEGRAPE_PRECISION": "fp16",
        "VINEGRAPE_THREADS": "2",
        "VINEGRAPE_DECODE_THREADS": "3",
        "VINEGRAPE_MAX_IMAGE_BYTES": "4",
        "VINEGRAPE_MAX_IMAGE_PIXELS": "5",
        "VINEGRAPE_MAX_INSTANCES": "6",
        "VINEGRAPE_WORKER_MEMORY_MB": "7",
        "VINEGRAPE_OOD_THRESHOLD": "8",
        "VINEGRAPE_ABSTAIN": "known",
    }
    settings = WorkerSettings.from_environment(environment)
    assert settings == WorkerSettings("torchscript", "cuda", "fp16", 2, 3, 4, 5, 6, 7, "8", "known")
    assert settings.to_environment() == environment


def test_other_variables_are_ignored():
    assert WorkerSettings.from_environment({"VINEGRAPE_REST_PORT": "no port", "THREADS": "many"}) == WorkerSettings()


def test_a_value_that_is_not_a_number_is_reported_with_its_variable():
    with pytest.raises(SettingError, match="VINEGRAPE_THREADS is 'many'; it must be a whole number"):
        WorkerSettings.from_environment({"VINEGRAPE_THREADS": "many"})


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("backend", "auto, onnx_int8, onnx_fp32, torchscript"),
        ("device", "auto, cpu, cuda"),
        ("precision", "fp32, fp16"),
    ],
)
def test_an_invalid_choice_is_reported_with_the_valid_ones(name, allowed):
    with pytest.raises(SettingError, match=f"{name} is 'other'; it must be one of {allowed}"):
        WorkerSettings.from_environment({f"VINEGRAPE_{name.upper()}": "other"})


@pytest.mark.parametrize(
    ("name", "minimum"),
    [
        ("threads", 1),
        ("decode_threads", 0),
        ("max_image_bytes", 1),
        ("max_image_pixels", 1),
        ("max_instances", 1),
        ("worker_memory_mb", 0),
    ],
)
def test_a_value_below_the_minimum_is_reported(name, minimum):
    WorkerSettings(**{name: minimum})
    with pytest.raises(SettingError, match=f"{name} is {minimum - 1}; it must be at least {minimum}"):
        WorkerSettings(**{name: minimum - 1})


def test_more_pixels_than_pillow_accepts_are_reported():
    WorkerSettings(max_image_pixels=178_956_970)
    with pytest.raises(SettingError, match="max_image_pixels is 178956971; it must be at most 178956970"):
        WorkerSettings(max_image_pixels=178_956_971)


@pytest.mark.parametrize("values", [{"device": "cpu"}, {"backend": "onnx_int8"}, {"backend": "onnx_fp32"}])
def test_fp16_is_rejected_without_torchscript_on_a_gpu(values):
    with pytest.raises(SettingError, match="Set precision to fp32"):
        WorkerSettings(precision="fp16", **values)


@pytest.mark.parametrize("values", [{}, {"device": "cuda"}, {"device": "cuda", "backend": "torchscript"}])
def test_fp16_is_accepted_where_a_gpu_is_possible(values):
    assert WorkerSettings(precision="fp16", **values).precision == "fp16"


@pytest.mark.parametrize("value", ["high", "nan", "inf", "1,5"])
def test_a_threshold_that_is_not_a_number_is_reported_with_an_example(value):
    with pytest.raises(SettingError, match=f"ood_threshold is '{value}'; it must be a number, such as 1.5"):
        WorkerSettings(ood_threshold=value)


def test_a_threshold_replaces_that_of_the_archive():
    assert WorkerSettings(ood_threshold="-1.5").choose_threshold(0.5) == -1.5
    assert WorkerSettings(ood_threshold="0").choose_threshold(None) == 0
    assert WorkerSettings().choose_threshold(0.5) == 0.5
    assert WorkerSettings().choose_threshold(None) is None
