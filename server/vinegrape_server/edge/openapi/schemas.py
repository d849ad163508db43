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
        "Prediction": _prediction(metadata, settings),
        "Predictions": _object(
            "One result per instance, in the order of the instances.",
            predictions={
                "type": "array",
                "items": {"anyOf": [reference("Prediction"), reference("HuggingFace"), reference("Error")]},
            },
        ),
        "ExplainedPrediction": _prediction(metadata, settings, explanation=reference("Explanation")),
        "ExplainedPredictions": _object(
            "One result per instance, in the order of the instances.",
            predictions={
                "type": "array",
                "items": {"anyOf": [reference("ExplainedPrediction"), reference("Error")]},
            },
        ),
        "Explanation": _explanation(metadata),
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
            "A form with one image, in the field `image`, `data` or `file`. Parameters of the query can be "
            "fields, too; other fields are ignored.",
            image={"type": "string", "format": "binary", "description": "The image file."},
        )
        | {"maxProperties": 16},
        "Model": _object(
            "The model that classified the image.", name={"const": metadata.name}, version={"type": "string"}
        ),
        "ModelDescription": _description(metadata),
        "HuggingFace": {
            "type": "array",
            "description": "A prediction in the form of Hugging Face, with `format=huggingface`; empty if the image is "
            "not known.",
            "items": _object(
                "A class.", label={"enum": list(metadata.classes)}, score=_probability("Its probability.")
            ),
        },
        **_open_inference(metadata),
        "Models": _object("The names of the models.", models={"type": "array", "items": {"const": metadata.name}}),
        "ModelReady": _object("The model is ready.", name={"const": metadata.name}, ready={"const": True}),
        "Ready": _object("The server is ready.", ready={"const": True}),
        "Live": _object("The server runs.", live={"const": True}),
        "Health": _object("The server is ready.", status={"const": "Healthy"}),
        "Error": _object("An error.", error=_error()),
        "TextError": _object("An error of the Open Inference Protocol.", error={"type": "string"}),
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


def _prediction(metadata: Metadata, settings: WorkerSettings, **more: Schema) -> Schema:
    classes = list(metadata.classes)
    known: dict[str, Schema] = {}
    if metadata.ood_threshold is not None:
        known = {
            "known": {"type": "boolean", "description": "Whether the image is similar to the training images."},
            "ood_score": {"type": "number", "description": "How much the image differs from the training images."},
        }
    can_be_null = known and settings.abstain == "label"
    return _object(
        "The prediction for one image.",
        label={
            "enum": [*classes, None] if can_be_null else classes,
            "description": "The class with the highest probability"
            + ("; null if `known` is false." if can_be_null else "."),
        },
        probability=_probability("The highest probability."),
        probabilities={
            "type": "object",
            "description": "The probability of each class, or of the `top_k` most probable ones. Those of all classes "
            "sum to 1, except for rounding to 6 decimals.",
            "minProperties": 1,
            "properties": {name: {"type": "number", "minimum": 0, "maximum": 1} for name in classes},
            "additionalProperties": False,
        },
        **known,
        **more,
        model=reference("Model"),
    )


def _explanation(metadata: Metadata) -> Schema:
    count = {"type": "integer", "minimum": 1}
    heat = {"type": "number", "minimum": 0, "maximum": 1}
    return _object(
        "A heat map: how much each place of the image speaks for a class.",
        **{"class": {"enum": list(metadata.classes), "description": "The class."}},
        width=count | {"description": "Values per row."},
        height=count | {"description": "Rows."},
        values={
            "type": "array",
            "items": {"type": "array", "items": heat},
            "description": "The rows from the top, each from the left. The highest value is 1, and 0 means that the "
            "place does not speak for the class. All are 0 if none does.",
        },
    )


def _open_inference(metadata: Metadata) -> dict[str, Schema]:
    """Return the schemas of the Open Inference Protocol."""
    text = {"type": "string"}
    shape = {"type": "array", "items": {"type": "integer", "minimum": -1}, "description": "-1: any length."}
    described = {"type": "array", "items": reference("TensorMetadata")}
    datatype = {"enum": ["BYTES", "UINT8", "FP32", "BOOL"]}
    infer_input = _object(
        "The input: `image` with the datatype `BYTES`, or `pixels` with `UINT8`.",
        name={"enum": ["image", "pixels"]},
        datatype={"enum": ["BYTES", "UINT8"]},
        shape={
            "type": "array",
            "minItems": 1,
            "maxItems": 4,
            "items": {"type": "integer", "minimum": 0},
            "description": f"`image`: [N]; `pixels`: [N, {metadata.input_size}, {metadata.input_size}, 3].",
        },
    )
    infer_input["properties"]["data"] = {
        "type": "array",
        "description": "Image files in base64, or numbers from 0 to 255. Absent if the data follows the JSON.",
    }
    request = _object(
        "Images.", inputs={"type": "array", "minItems": 1, "maxItems": 1, "items": reference("InferInput")}
    )
    request["properties"] |= {
        "id": {"type": ["string", "null"], "description": "Is returned in the response."},
        "outputs": {"description": "A list of objects with the `name` of a wanted output; without it, all."},
        "parameters": {"description": "`binary_data_output`: true asks for binary outputs."},
    }
    response = _object(
        "The outputs for all images.",
        model_name={"const": metadata.name},
        model_version=text,
        outputs={"type": "array", "items": reference("InferOutput")},
    )
    response["properties"]["id"] = text
    output = _object("One output.", name=text, datatype=datatype, shape=shape)
    output["properties"]["data"] = {"type": "array", "description": "Absent if the data follows the JSON."}
    return {
        "InferRequest": request,
        "InferInput": infer_input,
        "InferResponse": response,
        "InferOutput": output,
        "ServerMetadata": _object("The server.", name=text, version=text, extensions={"type": "array", "items": text}),
        "ModelMetadata": _object(
            "The model's inputs and outputs.",
            name={"const": metadata.name},
            versions={"type": "array", "items": text},
            platform=text,
            inputs=described,
            outputs=described,
        ),
        "TensorMetadata": _object("A tensor.", name=text, datatype=datatype, shape=shape),
    }


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
        explanations={"type": "boolean", "description": "Whether predictions can be explained."},
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
