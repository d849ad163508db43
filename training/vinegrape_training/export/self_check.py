"""The self-check of an archive: images that a worker classifies before it serves, and the expected probabilities."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vinegrape_handler.classifier import Classifier
from vinegrape_handler.errors import RequestError
from vinegrape_handler.images.decode import Limits
from vinegrape_handler.metadata import Metadata, SelfCheck
from vinegrape_handler.networks import Network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import Backend
from vinegrape_training.data import drawn_leaves

_SIDE = 256


def draw(folder: Path) -> None:
    """Draw one leaf of each kind to a new folder."""
    folder.mkdir()
    for number, kind in enumerate(drawn_leaves.KINDS):
        drawn_leaves.draw_leaf(kind, np.random.default_rng(number), _SIDE).save(folder / f"{number}.png")


def record(metadata: Metadata, networks: Mapping[Backend, Network], folder: Path) -> Metadata:
    """Return the metadata with the probabilities that each network computes for the images in a folder."""
    limits = Limits.of(WorkerSettings())
    classifiers = {backend: Classifier(metadata, network, limits) for backend, network in networks.items()}
    checks = (
        SelfCheck(image.name, {backend: _classify(classifier, image) for backend, classifier in classifiers.items()})
        for image in sorted(folder.iterdir())
    )
    return dataclasses.replace(metadata, self_check=tuple(checks))


def _classify(classifier: Classifier, image: Path) -> list[float]:
    (result,) = classifier.classify([image.read_bytes()])
    if isinstance(result, RequestError):
        raise result
    return [round(float(probability), 6) for probability in result.probabilities]
