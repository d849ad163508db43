"""Where the heat maps look: on the leaf, or on the background."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vinegrape_handler.classifier import Classifier
from vinegrape_handler.errors import ArchiveError, RequestError
from vinegrape_handler.explanation import heat_map
from vinegrape_handler.metadata import Metadata
from vinegrape_handler.networks import load_network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import available_backends, choose_backend
from vinegrape_training.data.dataset import LIMITS, scan
from vinegrape_training.data.transparency import OPAQUE, is_transparent, read_rgba
from vinegrape_training.errors import DataError


class HeatOnLeaves(NamedTuple):
    """How the heat of some images is distributed. All figures are medians over the images, but `lowest_ratio`.

    Attributes:
        images: number of images.
        leaf: the leaf's share of the image, 0 to 1.
        heat: the share of the heat that is on the leaf, 0 to 1.
        ratio: the second share over the first of the same image. 1 means that the map does not see the leaf.
        lowest_ratio: of all images.
    """

    images: int
    leaf: float
    heat: float
    ratio: float
    lowest_ratio: float

    def __str__(self) -> str:
        return (
            f"{self.images} images: {self.heat:.0%} of the heat is on the leaf, which has {self.leaf:.0%} of the "
            f"image; ratio {self.ratio:.2f}, lowest {self.lowest_ratio:.2f}"
        )


def measure_heat(folder: Path, data_dir: Path, count: int) -> HeatOnLeaves:
    """Measure which share of the heat of the predicted class is on the leaf.

    The network gets the images as the service reads them: on white, without the alpha channel. The alpha channel then
    says what is leaf. As in the service, the heat is the positive part of the class activation map.

    Args:
        folder: an export or an unpacked archive.
        data_dir: folder of images with a transparent background, one folder per class.
        count: number of images, spread evenly over the folder; all if there are fewer.

    Raises:
        ArchiveError: the network computes no activation maps.
        DataError: an image cannot be read, or its background is not transparent.
    """
    dataset = scan(data_dir)
    chosen = np.linspace(0, len(dataset.paths) - 1, min(count, len(dataset.paths))).astype(int)
    paths = [data_dir / dataset.paths[index] for index in chosen]
    backend = choose_backend("auto", available_backends(folder), on_gpu=False)
    network = load_network(folder, backend, WorkerSettings(), "cpu")
    classifier = Classifier(Metadata.read(folder), network, LIMITS)
    shares = np.array([_shares(classifier, path) for path in paths])  # [N, 2]
    ratios = shares[:, 1] / shares[:, 0]
    leaf, heat = np.median(shares, axis=0).tolist()
    return HeatOnLeaves(len(paths), leaf, heat, float(np.median(ratios)), float(ratios.min()))


def _shares(classifier: Classifier, path: Path) -> tuple[float, float]:
    """Return the leaf's share of an image, and the share of the heat on the leaf."""
    (scores,) = classifier.classify([path.read_bytes()])
    if isinstance(scores, RequestError):
        raise DataError(f"{path}: {scores}")
    if scores.activation_maps is None or scores.image is None:
        raise ArchiveError("The network computes no activation maps. Export the model again.")
    size = (scores.image.width, scores.image.height)
    leaf = _leaf(path, size)
    heat = heat_map(scores.activation_maps[scores.probabilities.argmax()], scores.image, size)
    return float(leaf.mean()), float(heat[leaf].sum() / max(heat.sum(), np.finfo(np.float32).tiny))


def _leaf(path: Path, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels of an image in this size, as width and height, are leaf."""
    image = read_rgba(path)
    if not is_transparent(image):
        raise DataError(f"{path} has no transparent pixels, so it is not known what is leaf.")
    return np.asarray(image.getchannel("A").resize(size, Image.Resampling.BILINEAR)) >= OPAQUE
