"""The backends, their weights files in an archive, and the choice of a backend."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from vinegrape_handler.errors import SettingError

Backend = Literal["onnx_int8", "onnx_fp32", "torchscript"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
WEIGHTS_FILES: dict[Backend, str] = {
    "onnx_int8": "model.int8.onnx",
    "onnx_fp32": "model.fp32.onnx",
    "torchscript": "model.torchscript.pt",
}
# The default of `vinegrape archive --weights`: one backend for a CPU and one for a GPU
DEFAULT_WEIGHTS: tuple[Backend, ...] = ("onnx_int8", "torchscript")


def available_backends(folder: Path) -> tuple[Backend, ...]:
    """List the backends whose weights are in a folder (an export or an unpacked archive), in the order of BACKENDS."""
    return tuple(backend for backend in BACKENDS if (folder / WEIGHTS_FILES[backend]).is_file())


def choose_backend(setting: Literal["auto"] | Backend, available: tuple[Backend, ...], on_gpu: bool) -> Backend:
    """Choose the backend to run.

    Args:
        setting: the setting `backend`. "auto" means torchscript on a GPU, else the first available of BACKENDS.
        available: backends whose weights the archive holds.
        on_gpu: whether the network runs on a GPU.

    Raises:
        SettingError: the archive does not hold the weights.
    """
    candidates: tuple[Backend, ...]
    if setting != "auto":
        candidates = (setting,)
    elif on_gpu:
        candidates = ("torchscript", *BACKENDS)
    else:
        candidates = BACKENDS
    for backend in candidates:
        if backend in available:
            return backend
    raise SettingError(
        f"backend is {setting!r}, but the archive holds the weights of: {', '.join(available) or 'none'}. "
        "Set backend to one of them, or serve an archive that holds its weights."
    )
