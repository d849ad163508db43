"""Load the network with ONNX Runtime or TorchScript.

Each class imports its runtime in `__init__`, because a worker that runs ONNX on a CPU needs no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from vinegrape_handler.errors import SettingError
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import WEIGHTS_FILES, Backend

if TYPE_CHECKING:
    import torch


PROBABILITIES, OOD_SCORE, ACTIVATION_MAPS = "probabilities", "ood_score", "activation_maps"
"""The names of a network's outputs in its weights files. Only the first one must exist."""


class Outputs(NamedTuple):
    """What a network computes for a batch.

    Attributes:
        probabilities: float32 [N, C]; each row sums to 1.
        ood_scores: float32 [N], the higher the less an image is like the training images. None if the network computes
            none.
        activation_maps: float32 [N, C, h, w]: how much each place of the image adds to the logit of each class, before
            the temperature. None if the network computes none.
    """

    probabilities: NDArray[np.float32]
    ood_scores: NDArray[np.float32] | None = None
    activation_maps: NDArray[np.float32] | None = None

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[np.float32]]) -> Outputs:
        """Take the outputs from arrays by name; others are ignored."""
        return cls(arrays[PROBABILITIES], arrays.get(OOD_SCORE), arrays.get(ACTIVATION_MAPS))


class Network(Protocol):
    """A loaded network."""

    def __call__(self, batch: NDArray[np.uint8]) -> Outputs:
        """Run the network once.

        Args:
            batch: uint8 [N, S, S, 3], RGB, 0 to 255.
        """


def load_network(folder: Path, backend: Backend, settings: WorkerSettings, device: str) -> Network:
    """Load a backend's weights.

    Args:
        folder: an export or an unpacked archive.
        backend: one whose weights are in the folder.
        settings: `threads` and `precision` are used.
        device: "cpu", or "cuda:0", "cuda:1", ...

    Raises:
        SettingError: the runtime is not installed or does not support the device.
    """
    path = folder / WEIGHTS_FILES[backend]
    if backend == "torchscript":
        return TorchScriptNetwork(path, device, settings.threads, half=settings.precision == "fp16")
    return OnnxNetwork(path, device, settings.threads)


class OnnxNetwork:
    """An ONNX model in ONNX Runtime."""

    def __init__(self, path: Path, device: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # An idle thread that spins takes CPU time from the other workers.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3  # errors
        providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
        if device.startswith("cuda"):
            if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
                raise SettingError(
                    f"device is {device}, but the installed onnxruntime does not support CUDA. Install "
                    "onnxruntime-gpu, or set backend to torchscript, or set device to cpu."
                )
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.partition(":")[2] or "0"}))
        self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, batch: NDArray[np.uint8]) -> Outputs:
        """See `Network`."""
        arrays = self._session.run(self._outputs, {self._input: batch})
        return Outputs.of(dict(zip(self._outputs, arrays, strict=True)))


class TorchScriptNetwork:
    """A TorchScript module, on CPU or GPU. It returns a dictionary of its outputs, or the probabilities alone."""

    def __init__(self, path: Path, device: str, threads: int, *, half: bool) -> None:
        try:
            import torch
        except ImportError as error:
            raise SettingError(
                "backend is torchscript, but torch is not installed. Run: pip install 'vinegrape[torchscript]', "
                "or set backend to onnx_int8."
            ) from error
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise SettingError(f"device is {device}, but torch {torch.__version__} finds no GPU. Set device to cpu.")
        torch.set_num_threads(threads)
        self._device = torch.device(device)
        module = torch.jit.load(path, map_location=self._device)  # type: ignore[no-untyped-call]
        # freeze() folds batch normalisation into the convolutions, and optimize_for_inference() lets oneDNN fuse what
        # follows them: 16 ms per image instead of 27.
        module = torch.jit.freeze((module.half() if half else module).eval())
        self._module: torch.jit.ScriptModule = (
            torch.jit.optimize_for_inference(module) if self._device.type == "cpu" else module
        )
        self._torch = torch

    def __call__(self, batch: NDArray[np.uint8]) -> Outputs:
        """See `Network`."""
        torch = self._torch
        with torch.inference_mode():
            images = torch.from_numpy(batch).to(self._device, non_blocking=True)
            result = self._module(images)
            tensors = result if isinstance(result, dict) else {PROBABILITIES: result}
            return Outputs.of({name: tensor.float().cpu().numpy() for name, tensor in tensors.items()})
