"""A hand-made model whose probabilities can be worked out on paper, and its archive.

Let r, g and b be the mean of each channel, from 0 (black) to 1. The network gives the five classes the scores 3r, 3g,
3b, 0.6 and 0.4, and divides each score by their sum. So a red image is Ak with probability 3 / 4, a green one is
Ala_Idris, and a blue one is Buzgulu. A black image is Dimnit with probability 0.6 and Nazli with 0.4.

With a threshold, the network also gives each image the OOD score b: so it knows every image that is not too blue.

With explanations, it also gives each of 4 x 4 places and each class the score of that place, without the 0.6 and 0.4.

Building the model takes some milliseconds. Only its TorchScript weights need torch.
"""

import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import vinegrape_handler
from vinegrape_handler.metadata import METADATA_FILE, SELF_CHECK_FOLDER, Metadata, SelfCheck
from vinegrape_handler.networks import ACTIVATION_MAPS, OOD_SCORE, PROBABILITIES
from vinegrape_handler.reference import Distribution, Reference
from vinegrape_handler.weights import WEIGHTS_FILES, Backend

CLASSES = ("Ak", "Ala_Idris", "Buzgulu", "Dimnit", "Nazli")
SIDE = 16  # pixels per side of the network's input
PLACES = 4  # per side of the activation maps

OOD_THRESHOLD = 0.5  # of the archive that does not know blue images

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)

# Of a model whose images were all red: probability 3 / 4, and brightness 1 / 3
RED_REFERENCE = Reference(
    images=1000,
    labels={"Ak": 1.0, "Ala_Idris": 0.0, "Buzgulu": 0.0, "Dimnit": 0.0, "Nazli": 0.0},
    values={
        "confidence": Distribution((0.7, 0.8), (0.0, 1.0, 0.0)),
        "brightness": Distribution((0.3, 0.4), (0.0, 1.0, 0.0)),
    },
)

_WEIGHTS = np.array([[3, 0, 0, 0, 0], [0, 3, 0, 0, 0], [0, 0, 3, 0, 0]], np.float32)
_BIAS = np.array([0, 0, 0, 0.6, 0.4], np.float32)


def probabilities(rgb: Sequence[int]) -> list[float]:
    """Return the probabilities that the network computes for an image of one RGB colour: five numbers that sum to 1."""
    scores = [3 * value / 255 for value in rgb] + [0.6, 0.4]
    return [score / sum(scores) for score in scores]


def write_export(
    folder: Path,
    backends: Iterable[Backend] = ("onnx_int8", "onnx_fp32"),
    ood_threshold: float | None = None,
    reference: Reference | None = None,
    *,
    explains: bool = False,
    version: str = "tiny",
) -> Metadata:
    """Write weights, metadata and self-check images to a new folder, as `vinegrape export` does.

    With an `ood_threshold` the network computes OOD scores; if it `explains`, it computes activation maps.
    """
    backends = tuple(backends)
    has_ood_score = ood_threshold is not None
    (folder / SELF_CHECK_FOLDER).mkdir(parents=True)
    checks = []
    for number, colour in enumerate((RED, BLACK)):
        Image.new("RGB", (SIDE, SIDE), colour).save(folder / SELF_CHECK_FOLDER / f"{number}.png")
        checks.append(SelfCheck(f"{number}.png", {backend: probabilities(colour) for backend in backends}))
    for backend in backends:
        path = folder / WEIGHTS_FILES[backend]
        if backend == "torchscript":
            _write_torchscript(path, has_ood_score=has_ood_score, explains=explains)
        else:  # both ONNX files hold the same float graph; tests of quantization use trained networks
            onnx.save(_onnx_model(has_ood_score=has_ood_score, explains=explains), path)
    metadata = Metadata(
        name="vinegrape",
        version=version,
        architecture="mean_colour",
        classes=CLASSES,
        input_size=SIDE,
        interpolation="bilinear",
        temperature=1.0,
        initial_weights="none",
        data_digest="none",
        metrics={},
        libraries={},
        self_check=tuple(checks),
        ood_threshold=ood_threshold,
        reference=reference,
    )
    (folder / METADATA_FILE).write_text(metadata.to_json())
    return metadata


def write_archive(path: Path, export: Path) -> Path:
    """Pack an export and the current handler as `vinegrape archive` does, but without its checks."""
    metadata = Metadata.read(export)
    manifest = {
        "createdOn": "01/01/1980 00:00:00",
        "runtime": "python",
        "model": {
            "modelName": metadata.name,
            "handler": "vinegrape_entry.py",
            "modelVersion": metadata.version,
        },
        "archiverVersion": "0.12.0",
    }
    package = Path(vinegrape_handler.__file__).parent
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        archive.write(package.with_name("vinegrape_entry.py"), "vinegrape_entry.py")
        for file in package.rglob("*.*"):
            if file.suffix != ".pyc":
                archive.write(file, file.relative_to(package.parent))
        for file in export.rglob("*"):
            archive.write(file, file.relative_to(export))
    return path


def _onnx_model(*, has_ood_score: bool, explains: bool) -> onnx.ModelProto:
    constants = {"axes": np.array([1, 2]), "weights": _WEIGHTS / 255, "bias": _BIAS, "classes": np.array([1])}
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["float", "axes"], ["means"], keepdims=0),  # [N, 3]
        helper.make_node("MatMul", ["means", "weights"], ["weighted"]),
        helper.make_node("Add", ["weighted", "bias"], ["scores"]),  # [N, 5]
        helper.make_node("ReduceSum", ["scores", "classes"], ["sum"], keepdims=1),
        helper.make_node("Div", ["scores", "sum"], ["probabilities"]),
    ]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(CLASSES)])]
    if has_ood_score:
        constants |= {"blue": np.array(2), "top": np.array(255, np.float32)}
        nodes += [
            helper.make_node("Gather", ["means", "blue"], ["mean_blue"], axis=1),
            helper.make_node("Div", ["mean_blue", "top"], [OOD_SCORE]),
        ]
        outputs.append(helper.make_tensor_value_info(OOD_SCORE, TensorProto.FLOAT, ["N"]))
    if explains:
        constants["layer"] = (_WEIGHTS.T / 255)[:, :, np.newaxis, np.newaxis]
        size = [SIDE // PLACES] * 2
        nodes += [
            helper.make_node("Transpose", ["float"], ["channels"], perm=[0, 3, 1, 2]),
            helper.make_node("AveragePool", ["channels"], ["places"], kernel_shape=size, strides=size),
            helper.make_node("Conv", ["places", "layer"], [ACTIVATION_MAPS]),
        ]
        shape = ["N", len(CLASSES), PLACES, PLACES]
        outputs.append(helper.make_tensor_value_info(ACTIVATION_MAPS, TensorProto.FLOAT, shape))
    graph = helper.make_graph(
        nodes,
        "mean_colour",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", SIDE, SIDE, 3])],
        outputs,
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def _write_torchscript(path: Path, *, has_ood_score: bool, explains: bool) -> None:
    import torch

    class MeanColour(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weights", torch.from_numpy(_WEIGHTS / 255))
            self.register_buffer("bias", torch.from_numpy(_BIAS))

        def forward(self, images):
            # type_as, unlike to(dtype), is traced so that it follows a conversion of the module to half precision
            means = images.type_as(self.weights).mean(dim=(1, 2))
            scores = means @ self.weights + self.bias
            result = scores / scores.sum(dim=1, keepdim=True)
            outputs = {PROBABILITIES: result}
            if has_ood_score:
                outputs[OOD_SCORE] = means[:, 2] / 255
            if explains:
                pixels = images.type_as(self.weights).permute(0, 3, 1, 2)
                places = torch.nn.functional.adaptive_avg_pool2d(pixels, PLACES)
                outputs[ACTIVATION_MAPS] = torch.einsum("nchw,ck->nkhw", places, self.weights)
            return outputs

    example = torch.zeros(2, SIDE, SIDE, 3, dtype=torch.uint8)
    torch.jit.trace(MeanColour().eval(), example, strict=False).save(path)
