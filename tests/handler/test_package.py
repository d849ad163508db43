"""What the package needs to be imported: nothing that a worker serving ONNX does not have."""

import subprocess
import sys
from pathlib import Path

import pytest
import vinegrape_handler

MODULES = [path.stem for path in Path(vinegrape_handler.__file__).parent.glob("*.py")]


def run(code) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


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
