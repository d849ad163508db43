"""What the package needs to be imported: nothing that a worker serving ONNX does not have."""

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


@pytest.mark.parametrize("heavy", ["ts", "torch", "timm", "onnxruntime", "vinegrape_training", "vinegrape_server"])
def test_importing_every_module_does_not_import(heavy):
    imports = "".join(f"import vinegrape_handler.{name}; " for name in MODULES)
    assert run(f"import sys; {imports} import vinegrape_entry; print({heavy!r} in sys.modules)") == "False"


def test_the_entry_file_has_the_one_class_that_torchserve_demands():
    """Counted by TorchServe's own function."""
    code = (
        "import vinegrape_entry; from ts.utils.util import list_classes_from_module as classes; "
        "print([each.__name__ for each in classes(vinegrape_entry)])"
    )
    assert run(code) == "['VinegrapeHandler']"


@pytest.mark.parametrize("package", ["vinegrape_handler", "vinegrape_training.export.weights"])
def test_onnx_runtime_reports_to_nobody(package, export, tmp_path, monkeypatch):
    """It would begin by giving this machine an identity, in the home folder."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    code = f"import sys, {package}, onnxruntime; print(onnxruntime.InferenceSession(sys.argv[1]).get_inputs()[0].name)"
    variables = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    assert run(code, export / WEIGHTS_FILES["onnx_int8"], **variables)
    assert not list(tmp_path.rglob("*onnxruntime*"))
