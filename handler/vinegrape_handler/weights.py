"""The weights that an archive can hold, one file per backend, and the choice between them."""

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
# What an archive carries unless told otherwise: one for a CPU, one for a GPU
DEFAULT_WEIGHTS: tuple[Backend, ...] = ("onnx_int8", "torchscript")


def available_backends(folder: Path) -> tuple[Backend, ...]:
    """The backends whose weights an export or an unpacked archive holds."""
    return tuple(backend for backend in BACKENDS if (folder / WEIGHTS_FILES[backend]).is_file())


def choose_backend(wanted: str, held: tuple[Backend, ...], on_gpu: bool) -> Backend:
    """Settle backend "auto", and check any other against what the archive holds.

    Raises:
        SettingError: the archive does not hold those weights.
    """
    if wanted == "auto":
        preferred: tuple[Backend, ...] = ("torchscript", *BACKENDS) if on_gpu else BACKENDS
        for backend in preferred:
            if backend in held:
                return backend
    for backend in held:
        if backend == wanted:
            return backend
    raise SettingError(f"backend is {wanted!r}, but the archive holds the weights of: {', '.join(held) or 'none'}.")
