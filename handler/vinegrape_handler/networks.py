"""The network in one of its runtimes. All take uint8 [N,S,S,3] and give float32 probabilities [N,C].

Each runtime is imported where it is used: a worker that serves ONNX on a CPU needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from vinegrape_handler.errors import SettingError
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import WEIGHTS_FILES, Backend

if TYPE_CHECKING:
    import torch


class Network(Protocol):
    """A loaded network: uint8 [N,S,S,3], RGB, 0 to 255, to float32 probabilities [N,C]."""

    def __call__(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the network once."""


def load_network(folder: Path, backend: Backend, settings: WorkerSettings, device: str) -> Network:
    """Load a backend's weights from a folder.

    Args:
        folder: an unpacked archive, or an export.
        backend: one that the folder holds.
        settings: threads and precision.
        device: "cpu" or "cuda:0", "cuda:1", ...

    Raises:
        SettingError: the runtime that is installed cannot do this.
    """
    path = folder / WEIGHTS_FILES[backend]
    if backend == "torchscript":
        return TorchScriptNetwork(path, device, settings.threads, half=settings.precision == "fp16")
    return OnnxNetwork(path, device, settings.threads)


class OnnxNetwork:
    """ONNX Runtime."""

    def __init__(self, path: Path, device: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # An idle thread that spins takes the core from the neighbouring worker
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors
        providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
        if device.startswith("cuda"):
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise SettingError(
                    f"device is {device}, and the installed onnxruntime has no CUDA. Install onnxruntime-gpu, "
                    "or set backend to torchscript, or device to cpu."
                )
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.partition(":")[2] or "0"}))
        self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Network`."""
        probabilities: NDArray[np.float32] = self._session.run(None, {self._input: batch})[0]
        return probabilities


class TorchScriptNetwork:
    """TorchScript, on CPU or GPU."""

    def __init__(self, path: Path, device: str, threads: int, *, half: bool) -> None:
        try:
            import torch
        except ImportError as error:
            raise SettingError(
                "backend torchscript needs torch, which is not installed: pip install 'vinegrape[torchscript]', "
                "or set backend to onnx_int8."
            ) from error
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise SettingError(f"device is {device}, and torch {torch.__version__} finds no GPU. Set device to cpu.")
        torch.set_num_threads(threads)
        self._device = torch.device(device)
        module = torch.jit.load(path, map_location=self._device)  # type: ignore[no-untyped-call]
        # Freezing folds the batch norms into the convolutions, and oneDNN fuses what follows: 16 ms an image, not 27
        module = torch.jit.freeze((module.half() if half else module).eval())
        self._module: torch.jit.ScriptModule = (
            torch.jit.optimize_for_inference(module) if self._device.type == "cpu" else module
        )
        self._torch = torch

    def __call__(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `Network`."""
        torch = self._torch
        with torch.inference_mode():
            images = torch.from_numpy(batch).to(self._device, non_blocking=True)
            probabilities: NDArray[np.float32] = self._module(images).float().cpu().numpy()
        return probabilities
