"""Build the JSON of a response: a prediction, or the model's description. `errors.error_body` builds an error."""

from __future__ import annotations

import json
from typing import Any, Literal

from vinegrape_handler.classifier import Scores
from vinegrape_handler.images.kinds import FORMATS
from vinegrape_handler.metadata import Metadata
from vinegrape_handler.settings import WorkerSettings

CONTENT_TYPE = "application/json"

# A float32 softmax is not more precise, and another batch size may change the seventh decimal.
_DECIMALS = 6


def prediction(scores: Scores, metadata: Metadata, abstain: Literal["label", "known"]) -> dict[str, Any]:
    """Build the prediction for one image.

    Args:
        scores: of the image.
        metadata: of the model that computed them.
        abstain: see `WorkerSettings.abstain`.
    """
    by_class = {
        name: round(value, _DECIMALS)
        for name, value in zip(metadata.classes, scores.probabilities.tolist(), strict=True)
    }
    label = max(by_class, key=by_class.__getitem__)
    abstention: dict[str, Any] = {}
    if metadata.ood_threshold is not None and scores.ood_score is not None:
        known = scores.ood_score <= metadata.ood_threshold
        abstention = {"known": known, "ood_score": round(scores.ood_score, _DECIMALS)}
    return {
        "label": label if abstain == "known" or abstention.get("known", True) else None,
        "probability": by_class[label],
        "probabilities": by_class,
        **abstention,
        "model": {"name": metadata.name, "version": metadata.version},
    }


def description(metadata: Metadata, settings: WorkerSettings, backend: str, explains: bool) -> dict[str, Any]:
    """Build the description of the model and of the images that it accepts.

    Args:
        metadata: of the model.
        settings: of its workers.
        backend: the weights that run.
        explains: whether there are explanations.
    """
    return {
        "name": metadata.name,
        "version": metadata.version,
        "architecture": metadata.architecture,
        "classes": metadata.classes,
        "input_size": metadata.input_size,
        "backend": backend,
        "formats": FORMATS,
        "limits": {
            "image_bytes": settings.max_image_bytes,
            "image_pixels": settings.max_image_pixels,
            "instances": settings.max_instances,
        },
        **({} if metadata.ood_threshold is None else {"ood_threshold": metadata.ood_threshold}),
        "explanations": explains,
        "metrics": metadata.metrics,
        "data_digest": metadata.data_digest,
        "libraries": metadata.libraries,
    }


def encode(body: dict[str, Any] | list[Any]) -> bytes:
    """Encode a body as compact JSON in UTF-8."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()
