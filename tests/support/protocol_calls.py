"""A model without a network, and requests to it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from tests.support.metadata import METADATA
from vinegrape_handler.classifier import FittedImage, Scores
from vinegrape_handler.contract import PATH_HEADER
from vinegrape_handler.errors import RequestError
from vinegrape_handler.protocols.route import Classified, Model, Pending, Response
from vinegrape_handler.protocols.router import Router
from vinegrape_handler.settings import WorkerSettings

SIDE = 2
METADATA = dataclasses.replace(METADATA, input_size=SIDE)
MODEL = Model(METADATA, WorkerSettings(max_instances=3), "onnx_int8")
ABSTAINING = MODEL._replace(metadata=dataclasses.replace(METADATA, ood_threshold=0.5))

EXPLAINING = MODEL._replace(explains=True)

# A white image, whose left half speaks for Nazli and whose right half speaks for Ak
_MAPS = np.array([[[-1, 2], [-1, 2]], [[4, 0], [2, -1]]], np.float32)
_WHITE = FittedImage(np.full((SIDE, SIDE, 3), 255, np.uint8), SIDE, SIDE)
_SCORES = Scores(np.array([0.25, 0.75], np.float32), None, _MAPS, _WHITE)

NAZLI = Classified({"label": "Nazli", "probability": 0.75, "probabilities": {"Ak": 0.25, "Nazli": 0.75}}, _SCORES)
KNOWN = NAZLI._replace(prediction={**NAZLI.prediction, "known": True, "ood_score": 0.25})
UNKNOWN = NAZLI._replace(prediction={**NAZLI.prediction, "label": None, "known": False, "ood_score": 0.75})


def read(path: str, body: bytes = b"", model: Model = MODEL, **headers: str) -> Pending | Response:
    """Read a request. Return its images and how to respond, or the response of an error."""
    router = Router(model)
    all_headers: dict[str, Any] = {name.replace("_", "-"): value for name, value in headers.items()}
    if path:
        all_headers[PATH_HEADER] = path
    route = router.choose(all_headers)
    try:
        return route.read(router.call({"body": body} if body else {}, all_headers))
    except RequestError as error:
        return route.respond_to_error(error)
