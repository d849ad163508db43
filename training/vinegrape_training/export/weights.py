"""Write the serving graph in every file format that can be served."""

from __future__ import annotations

import tempfile
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from vinegrape_handler.weights import WEIGHTS_FILES
from vinegrape_training.checks import read_group
from vinegrape_training.data.augmentation.augment import augment
from vinegrape_training.data.augmentation.settings import Augmentation
from vinegrape_training.data.dataset import Dataset
from vinegrape_training.data.opacity import read_opacities
from vinegrape_training.export.graph import ServingGraph
from vinegrape_training.export.int8 import write_int8
from vinegrape_training.fit.config import compose_config, group_values
from vinegrape_training.fit.run import Run

_CALIBRATION_IMAGES = 50  # with as many changed ones; activation ranges hardly change beyond 100 images

_INPUT = "images"


def write_weights(graph: ServingGraph, run: Run, dataset: Dataset, images: NDArray[np.uint8], folder: Path) -> None:
    """Write one file per format.

    Args:
        graph: of the run's network, in eval mode.
        run: its training images calibrate the int8 file.
        dataset: the run's images.
        images: all images of the data set, uint8 [N, S, S, 3].
        folder: to write to.
    """
    side = run.input_size
    calibration = calibration_images(run, dataset, images)
    write_torchscript(graph, side, folder / WEIGHTS_FILES["torchscript"])
    write_onnx(graph, side, folder / WEIGHTS_FILES["onnx_fp32"])
    write_int8(folder / WEIGHTS_FILES["onnx_fp32"], calibration, folder / WEIGHTS_FILES["onnx_int8"])


def calibration_images(run: Run, dataset: Dataset, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the images that calibrate int8, uint8 [M, S, S, 3].

    They are training images, spread evenly over all classes, and the same images with other backgrounds, in other light
    and with the faults of a camera: photos of users have other activations than the data set's images.

    Args:
        run: its training images are used.
        dataset: the run's images.
        images: all images of the data set, uint8 [N, S, S, 3].
    """
    paths = _spread(run.split.train, _CALIBRATION_IMAGES)
    originals = images[dataset.indices_of(paths)]
    opacity = read_opacities(dataset.folder, paths, originals, run.interpolation)
    channels_last = np.concatenate([originals, opacity[..., np.newaxis]], axis=3)
    level = group_values(compose_config(["augmentation=photographed"]), "augmentation")
    augmentation = read_group(Augmentation, "augmentation", {**level, "disturbed": 1.0})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        changed = augment(torch.from_numpy(channels_last).permute(0, 3, 1, 2), augmentation)
    photos = changed.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return np.concatenate([originals, photos])


def write_torchscript(graph: ServingGraph, side: int, path: Path) -> None:
    """Trace the graph for any batch size, and write it as TorchScript.

    The debug records are left out, because they contain paths of the machine that traces.

    Args:
        graph: in eval mode, on the CPU.
        side: width and height of its input in pixels.
        path: of the file to write.
    """
    with torch.no_grad(), _quiet():
        # strict=False: the result is a dictionary
        traced = torch.jit.trace(graph, _example(side), strict=False)  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as folder:
        traced_path = Path(folder) / path.name
        traced.save(traced_path)
        with zipfile.ZipFile(traced_path) as source, zipfile.ZipFile(path, "w") as target:
            for item in source.infolist():
                if not item.filename.endswith(".debug_pkl"):
                    target.writestr(zipfile.ZipInfo(item.filename), source.read(item))


def write_onnx(graph: ServingGraph, side: int, path: Path) -> None:
    """Export the graph as float32 ONNX for any batch size; arguments as for `write_torchscript`."""
    batch = torch.export.Dim("batch", min=1)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        exported = Path(folder) / path.name
        torch.onnx.export(
            graph,
            (_example(side),),
            exported,
            dynamo=True,
            input_names=[_INPUT],
            output_names=graph.outputs,
            dynamic_shapes=({0: batch},),
            external_data=False,
            verbose=False,
        )
        model = onnx.load(exported)
    _remove_origin(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence deprecation warnings of torch's exporters; the user cannot act on them."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        yield


def _example(side: int) -> torch.Tensor:
    return torch.zeros(2, side, side, 3, dtype=torch.uint8)  # a tracer may treat a batch size of 1 as a constant


def _remove_origin(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes, which contain paths and source lines of the machine that exports."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def _spread(paths: Sequence[str], count: int) -> list[str]:
    """Choose at most `count` paths at equal distances; sorted paths cover all classes evenly."""
    return [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]
