"""The archive's network in the formats that the peers serve."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from vinegrape_handler.metadata import Metadata
from vinegrape_handler.weights import WEIGHTS_FILES
from vinegrape_training.models.factory import create_model

STOCK_SIDE = 224  # TorchServe's image_classifier crops to it, whatever the network wants


def network(folder: Path) -> nn.Module:
    """The network of an unpacked archive: normalised float32 [N,3,S,S] to logits, with the archive's weights."""
    metadata = Metadata.read(folder)
    served = torch.jit.load(folder / WEIGHTS_FILES["torchscript"], map_location="cpu")  # type: ignore[no-untyped-call]
    state = {name.removeprefix("network."): value for name, value in served.state_dict().items() if "network." in name}
    module = create_model(metadata.architecture, len(metadata.classes), "none", metadata.input_size)
    module.load_state_dict(state)
    return module.eval()


def write_onnx(folder: Path) -> None:
    """Write `ordinary.onnx`, float32, beside the archive's files."""
    side = Metadata.read(folder).input_size
    torch.onnx.export(
        network(folder),
        (torch.zeros(1, 3, side, side),),
        folder / "ordinary.onnx",
        input_names=["images"],
        dynamo=False,
        opset_version=17,
    )


def write_torchscript(folder: Path, path: Path) -> None:
    """Trace the network for images of the stock handler's size."""
    with torch.inference_mode():
        traced = torch.jit.trace(network(folder), torch.zeros(1, 3, STOCK_SIDE, STOCK_SIDE))  # type: ignore[no-untyped-call]
    traced.save(path)
