"""JSON schemas of the bodies of requests and responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vinegrape_handler.errors import REFUSALS, WORKER_ERRORS
from vinegrape_handler.images.kinds import FORMATS
from vinegrape_handler.metadata import Metadata
from vinegrape_handler.settings import WorkerSettings

Schema = dict[str, Any]


def reference(name: str) -> Schema:
    """Return a reference to one of the schemas of `make_schemas`."""
    return {"$ref": f"#/components/schemas/{name}"}


def make_schemas(metadata: Metadata, settings: WorkerSettings) -> dict[str, Schema]:
    """Return all schemas by their names.

    Args:
        metadata: of the served model.
        settings: of its workers.
    """
    return {
        "Prediction": _prediction(metadata),
        "Predictions": _object(
            "One result per instance, in the order of the instances.",
            predictions={"type": "array", "items": {"anyOf": [reference("Prediction"), reference("Error")]}},
        ),
        "Instances": _object(
            "Images in base64. Other keys are ignored.",
            instances={
                "type": "array",
                "minItems": 1,
                "maxItems": settings.max_instances,
                "items": {
                    "anyOf": [
                        reference("Instance"),
                        {"description": "Anything else. It gets an error in the place of its result."},
                    ]
                },
            },
        ),
        "Instance": _object(
            "One image.",
            b64={
                "type": "string",
                "description": "The image file in base64. Line breaks, the URL-safe alphabet, missing padding and a "
                "data URL are accepted.",
            },
        ),
        "Form": _object(
            "A form with one image, in the field image, data or file. Other fields are ignored.",
            image={"type": "string", "format": "binary", "description": "The image file."},
        )
        | {"maxProperties": 16},
        "Model": _object(
            "The model that classified the image.", name={"const": metadata.name}, version={"type": "string"}
        ),
        "ModelDescription": _description(metadata),
        "Health": _object("The server is ready.", status={"const": "Healthy"}),
        "Error": _object("An error.", error=_error()),
    }


def _object(description: str, **properties: Schema) -> Schema:
    """Return the schema of an object that has all these properties, and may have others."""
    return {
        "type": "object",
        "description": description,
        "required": list(properties),
        "properties": properties,
    }


def _probability(description: str) -> Schema:
    return {"type": "number", "minimum": 0, "maximum": 1, "description": description}


def _prediction(metadata: Metadata) -> Schema:
    classes = list(metadata.classes)
    return _object(
        "The prediction for one image.",
        label={"enum": classes, "description": "The class with the highest probability."},
        probability=_probability("The probability of the label."),
        probabilities={
            "type": "object",
            "description": "The probability of each class. They sum to 1, except for rounding to 6 decimals.",
            "required": classes,
            "properties": {name: {"type": "number", "minimum": 0, "maximum": 1} for name in classes},
            "additionalProperties": False,
        },
        model=reference("Model"),
    )


def _description(metadata: Metadata) -> Schema:
    text, count = {"type": "string"}, {"type": "integer", "minimum": 1}
    return _object(
        "The model, and the images that it accepts.",
        name={"const": metadata.name},
        version=text,
        architecture=text | {"description": "Name of the network in timm."},
        classes={"type": "array", "items": text, "description": "In the order of the network's outputs."},
        input_size=count | {"description": "Pixels per side of the network's input."},
        backend=text | {"description": "The weights that run."},
        formats={"type": "array", "items": {"enum": list(FORMATS)}},
        limits=_object(
            "The limits of one request.",
            image_bytes=count | {"description": "Maximum bytes of one encoded image."},
            image_pixels=count | {"description": "Maximum pixels of one image, and of all images of a request."},
            instances=count | {"description": "Maximum images in one JSON request."},
        ),
        metrics={"type": "object", "description": "Figures that were measured at training and export, by name."},
        data_digest=text | {"description": "SHA-256 over the training images."},
        libraries={
            "type": "object",
            "additionalProperties": text,
            "description": "Versions of the libraries that produced the weights.",
        },
    )


def error_of(status: int) -> Schema:
    """Return the schema of the errors with a status."""
    kinds = [error for error in (*WORKER_ERRORS, *REFUSALS) if error.status == status]
    return {"type": "object", "required": ["error"], "properties": {"error": _error([status], [k.type for k in kinds])}}


def _error(codes: Sequence[int] = (), types: Sequence[str] = ()) -> Schema:
    kinds = (*WORKER_ERRORS, *REFUSALS)
    return _object(
        "What is wrong, and what to do.",
        code={"enum": sorted(codes or {kind.status for kind in kinds}), "description": "The HTTP status."},
        type={"enum": sorted(types or {kind.type for kind in kinds}), "description": "For programs; never changes."},
        message={"type": "string", "minLength": 1, "description": "For people; may change."},
    )
