"""Imports of the package: a worker that runs ONNX needs no other runtime, and settings need no image library."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vinegrape_handler
from vinegrape_handler.weights import WEIGHTS_FILES

MODULES = [path.stem for path in Path(vinegrape_handler.__file__).parent.glob("*.py")]


def run(code, *arguments, **variables) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True, text=True, check=True, env={**os.environ, **variables},
    )  # fmt: skip
    return result.stdout.strip()


def loaded_modules(modules) -> set[str]:
    """Names of the top-level packages and modules that are loaded after importing these modules."""
    code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(run(code).split())


def test_the_package_does_not_import_torchserve_a_runtime_or_another_package():
    loaded = loaded_modules(["vinegrape_entry", *(f"vinegrape_handler.{name}" for name in MODULES)])
    assert {"vinegrape_handler", "numpy", "PIL"} <= loaded
    forbidden = {"ts", "torch", "timm", "onnxruntime", "vinegrape_training", "vinegrape_server"}
    assert loaded & forbidden == set()


def test_settings_metadata_and_contract_import_no_image_library():
    """`vinegrape ready` and `vinegrape serve --help` import these modules only."""
    names = ("errors", "fields", "contract", "settings", "metadata", "weights")
    loaded = loaded_modules(f"vinegrape_handler.{name}" for name in names)
    assert loaded & {"numpy", "PIL", "cykooz_resizer", "prometheus_client"} == set()


def test_the_entry_file_has_the_one_class_that_torchserve_requires():
    """The classes are listed by TorchServe's own function."""
    code = (
        "import vinegrape_entry; from ts.utils.util import list_classes_from_module as classes; "
        "print([each.__name__ for each in classes(vinegrape_entry)])"
    )
    assert run(code) == "['VinegrapeHandler']"


@pytest.mark.parametrize("package", ["vinegrape_handler", "vinegrape_training"])
def test_onnx_runtime_sends_no_telemetry(package, tiny_export, tmp_path, monkeypatch):
    """With telemetry, ONNX Runtime would create an ID of this machine in the home folder."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    code = f"import sys, {package}, onnxruntime; print(onnxruntime.InferenceSession(sys.argv[1]).get_inputs()[0].name)"
    variables = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    assert run(code, tiny_export / WEIGHTS_FILES["onnx_int8"], **variables) == "images"
    assert not list(tmp_path.rglob("*onnxruntime*"))
