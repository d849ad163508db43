"""Weights of the archive's network, in the formats that the peers need."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from vinegrape_handler.metadata import Metadata
from vinegrape_handler.weights import WEIGHTS_FILES
from vinegrape_training.models.factory import create_model

STOCK_SIDE = 224  # TorchServe's image_classifier always crops to this size, in pixels


def network(folder: Path) -> nn.Module:
    """Build the network of an unpacked archive: normalised float32 images [N,3,S,S] to logits [N,C]."""
    metadata = Metadata.read(folder)
    served = torch.jit.load(folder / WEIGHTS_FILES["torchscript"], map_location="cpu")  # type: ignore[no-untyped-call]
    state = {name.removeprefix("network."): value for name, value in served.state_dict().items() if "network." in name}
    module = create_model(metadata.architecture, len(metadata.classes), "none", metadata.input_size)
    module.load_state_dict(state)
    return module.eval()


def write_onnx(folder: Path) -> None:
    """Write the float32 network as `fastapi_float32.onnx` to the folder of the unpacked archive."""
    side = Metadata.read(folder).input_size
    torch.onnx.export(
        network(folder),
        (torch.zeros(1, 3, side, side),),
        folder / "fastapi_float32.onnx",
        input_names=["images"],
        dynamo=False,
        opset_version=17,
    )


def write_torchscript(folder: Path, path: Path) -> None:
    """Trace the network at the input size of TorchServe's image_classifier, and write it as TorchScript."""
    with torch.inference_mode():
        traced = torch.jit.trace(network(folder), torch.zeros(1, 3, STOCK_SIDE, STOCK_SIDE))  # type: ignore[no-untyped-call]
    traced.save(path)
