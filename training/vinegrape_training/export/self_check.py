"""The pictures that a worker asks its model about before it serves, and the answers that it must get."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vinegrape_handler.classifier import Classifier
from vinegrape_handler.decode import Limits
from vinegrape_handler.errors import RequestError
from vinegrape_handler.metadata import Metadata, SelfCheck
from vinegrape_handler.networks import Network
from vinegrape_handler.settings import WorkerSettings
from vinegrape_handler.weights import Backend
from vinegrape_training.data import drawn_leaves

_SIDE = 256


def draw(folder: Path) -> None:
    """Draw one leaf of each kind into a new folder."""
    folder.mkdir()
    for number, kind in enumerate(drawn_leaves.KINDS):
        drawn_leaves.draw_leaf(kind, np.random.default_rng(number), _SIDE).save(folder / f"{number}.png")


def record(metadata: Metadata, networks: Mapping[Backend, Network], folder: Path) -> Metadata:
    """The same metadata, with what each network answers to the pictures of a folder."""
    limits = Limits.of(WorkerSettings())
    classifiers = {backend: Classifier(metadata, network, limits) for backend, network in networks.items()}
    checks = (
        SelfCheck(picture.name, {b: _answer(classifier, picture) for b, classifier in classifiers.items()})
        for picture in sorted(folder.iterdir())
    )
    return dataclasses.replace(metadata, self_check=tuple(checks))


def _answer(classifier: Classifier, picture: Path) -> list[float]:
    (result,) = classifier.classify([picture.read_bytes()])
    if isinstance(result, RequestError):
        raise result
    return [round(float(probability), 6) for probability in result]
