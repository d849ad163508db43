"""The OpenAPI document: every path of the edge with its methods, parameters, bodies and errors."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from vinegrape_handler.errors import (
    REFUSALS,
    WORKER_ERRORS,
    BadRequest,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    RateLimited,
    RequestError,
    TooLarge,
    Unauthorized,
    Unavailable,
    UploadTimeout,
)
from vinegrape_server.edge.openapi.schemas import error_of, make_schemas, reference
from vinegrape_server.plan import Plan

JSON, HTML, PNG, BINARY = "application/json", "text/html", "image/png", "application/octet-stream"
IMAGE_TYPES = (PNG, "image/jpeg", "image/webp", "image/bmp", "image/tiff")

Operation = dict[str, Any]

# A request to a path of this document, with a method of it, never gets these two. (Explanations can be missing)
_NEVER = {NotFound, MethodNotAllowed}
# Only where keys are required
_KEY_ERRORS = {Unauthorized, Forbidden}
# What the edge refuses before it looks at the path
_STATIC_ERRORS = (BadRequest, UploadTimeout, TooLarge, RateLimited, Overloaded)
_WITH_RETRY_AFTER = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}


def make_document(plan: Plan) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a server with the edge.

    Args:
        plan: what is served; names, classes, limits and whether keys are required come from it.
    """
    metadata, settings = plan.archive.metadata, plan.settings
    document: dict[str, Any] = {
        "openapi": "3.1.1",
        "info": {
            "title": metadata.name,
            "version": version("vinegrape"),
            "summary": "Classifies photos of grapevine leaves.",
            "license": {"name": "Apache 2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name} for name in ("Images", "Model", _V1, _V2, "Server")],
        "paths": _paths(metadata.name, metadata.version, _errors_of(bool(settings.api_keys))),
        "components": {
            "schemas": make_schemas(metadata, settings.worker),
            "responses": _error_responses(),
            "parameters": {**_PARAMETERS, "class": _class(metadata.classes)},
        },
    }
    if settings.api_keys:
        document["components"]["securitySchemes"] = {
            "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            "bearer": {"type": "http", "scheme": "bearer"},
        }
        document["security"] = [{"key": []}, {"bearer": []}]
    return document


# Paths


def _paths(model: str, version: str, errors: tuple[type[RequestError], ...]) -> dict[str, dict[str, Operation]]:
    """Return the operations of each path.

    Args:
        model: name of the model.
        version: its version.
        errors: what a request to a worker can get.
    """
    classify, explain = _classify(errors), _explain(errors)
    ready_errors = (*_STATIC_ERRORS, Unavailable)

    def get(tag: str, summary: str, schema: str, text_errors: bool = False) -> dict[str, Operation]:
        return _with_head(_operation(tag, summary, _get({JSON: reference(schema)}, errors, text_errors)))

    def health(summary: str, schema: str, tag: str = "Server", text_errors: bool = False) -> dict[str, Operation]:
        content = _get({JSON: reference(schema)}, ready_errors, text_errors)
        return _with_head(_operation(tag, summary, content, needs_key=False))

    describe = _get({JSON: reference("ModelDescription"), HTML: {"type": "string"}}, errors)
    v1, v2 = f"/v1/models/{model}", f"/v2/models/{model}"
    paths = {
        f"/predictions/{model}": {
            "post": _operation("Images", "Classify images", classify, _EXPLAINED),
            "put": _operation("Images", "Classify images, for clients that upload with PUT, as curl -T", classify),
            **_with_head(_operation("Model", "Describe the model, or show the web page", describe)),
        },
        f"/explanations/{model}": {
            "post": _operation("Images", "Classify images, and explain the predictions", explain, _HEAT_MAP),
            "put": _operation("Images", "The same, for clients that upload with PUT, as curl -T", explain),
        },
        f"{v1}:predict": {"post": _operation(_V1, "Classify images", classify)},
        f"{v1}:explain": {"post": _operation(_V1, "Classify images, and explain the predictions", explain)},
        v1: health("Check whether the model is ready", "ModelReady", _V1),
        "/v1/models": health("List the models", "Models", _V1),
        "/v2": get(_V2, "Describe the server", "ServerMetadata", text_errors=True),
        "/v2/health/live": health("Check whether the server runs", "Live", _V2, text_errors=True),
        "/v2/health/ready": health("Check whether the server is ready", "Ready", _V2, text_errors=True),
    }
    for path in (v2, f"{v2}/versions/{version}"):
        paths |= {
            path: get(_V2, "Describe the model's inputs and outputs", "ModelMetadata", text_errors=True),
            f"{path}/ready": health("Check whether the model is ready", "ModelReady", _V2, text_errors=True),
            f"{path}/infer": {"post": _operation(_V2, "Classify images", _infer(errors), _INFER_EXPLAINED)},
        }
    paths |= {
        "/ping": health("Check whether the server is ready", "Health"),
        "/": _with_head(_operation("Server", "Go to the web page", _redirect(), needs_key=False)),
        "/openapi.json": _static("Get this description", JSON, {"type": "object"}),
        "/docs": _static("Read this description as a page", HTML, {"type": "string"}),
    }
    for path, operations in paths.items():
        for method, operation in operations.items():
            name = path.strip("/").replace("/", "_").replace(":", "_")
            operation["operationId"] = f"{method}_{name}" if name else method
    return paths


_V1, _V2 = "KServe version 1, Vertex AI", "Open Inference Protocol"
_EXPLAINED = (
    "An image or JSON is recognised by its first bytes, whatever its content type is. "
    "A JSON request gets status 200 even if some of its images get an error."
)
_HEAT_MAP = (
    "An explanation is the class activation map of the network: how much each place of the image speaks for the class. "
    "With `Accept: image/png` it is a picture of the image with its heat map; for one image only. "
    "A model whose network computes no maps has no explanations."
)
_INFER_EXPLAINED = (
    "The input is `image` (the files of images; in JSON as base64) or `pixels` (images of the network's input size). "
    "If an image has an error, the request gets it. With `application/octet-stream` the data of tensors follows the "
    "JSON: Triton's extension for binary tensors."
)


_IMAGES = {
    "required": True,
    "description": "One image, or several images as JSON.",
    "content": {
        **{name: {} for name in IMAGE_TYPES},
        "multipart/form-data": {"schema": reference("Form")},
        JSON: {"schema": reference("Instances")},
    },
}


def _classify(errors: Iterable[type[RequestError]]) -> Operation:
    kinds = [reference("Prediction"), reference("Predictions"), reference("HuggingFace")]
    return {
        "parameters": [_reference("parameters", "top_k"), _reference("parameters", "format")],
        "requestBody": _IMAGES,
        "responses": {
            "200": _success({JSON: {"anyOf": kinds}}, "One prediction; for JSON one result per instance."),
            **_responses(errors),
        },
    }


def _explain(errors: Iterable[type[RequestError]]) -> Operation:
    kinds = [reference("ExplainedPrediction"), reference("ExplainedPredictions")]
    return {
        "parameters": [_reference("parameters", "class"), _reference("parameters", "top_k")],
        "requestBody": _IMAGES,
        "responses": {
            "200": _success(
                {JSON: {"anyOf": kinds}, PNG: None}, "One explained prediction; for JSON one per instance."
            ),
            **_responses((*errors, NotFound)),
        },
    }


def _infer(errors: Iterable[type[RequestError]]) -> Operation:
    return {
        "parameters": [_reference("parameters", "json_length")],
        "requestBody": {"required": True, "content": {JSON: {"schema": reference("InferRequest")}, BINARY: {}}},
        "responses": {
            "200": _success({JSON: reference("InferResponse"), BINARY: None}, "The outputs for all images."),
            **_responses(errors, text_errors=True),
        },
    }


def _operation(tag: str, summary: str, rest: Operation, description: str = "", needs_key: bool = True) -> Operation:
    return {
        "tags": [tag],
        "summary": summary,
        **({"description": description} if description else {}),
        **rest,
        "parameters": [
            _reference("parameters", "request_id"),
            _reference("parameters", "timeout"),
            *rest.get("parameters", ()),
        ],
        **({} if needs_key else {"security": []}),
    }


def _get(
    content: Mapping[str, Mapping[str, Any]], errors: Iterable[type[RequestError]], text_errors: bool = False
) -> Operation:
    return {"responses": {"200": _success(content, "Success."), **_responses(errors, text_errors)}}


def _success(content: Mapping[str, Mapping[str, Any] | None], description: str) -> dict[str, Any]:
    """Return a response with status 200. Content without a schema is binary."""
    return {
        "description": description,
        "headers": _RESPONSE_HEADERS,
        "content": {name: {"schema": schema} if schema else {} for name, schema in content.items()},
    }


def _reference(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}


def _static(summary: str, media_type: str, schema: Mapping[str, Any]) -> dict[str, Operation]:
    return _with_head(_operation("Server", summary, _get({media_type: schema}, _STATIC_ERRORS), needs_key=False))


def _redirect() -> Operation:
    location = {"location": {"description": "Relative to this path.", "schema": {"type": "string"}}}
    moved = {"description": "The web page has the path of the model.", "headers": {**_RESPONSE_HEADERS, **location}}
    return {"responses": {"302": moved, **_responses(_STATIC_ERRORS)}}


def _with_head(get: Operation) -> dict[str, Operation]:
    """Return GET and HEAD; the response to HEAD has the same status and headers, and no body."""
    bodiless = {
        status: {"description": _meaning(int(status))}
        if "$ref" in response
        else {name: value for name, value in response.items() if name != "content"}
        for status, response in get["responses"].items()
    }
    return {"get": get, "head": {**get, "summary": f"{get['summary']}, without the body", "responses": bodiless}}


# Headers

_RESPONSE_HEADERS = {
    "x-request-id": {"description": "The id of the request, to find it in the log.", "schema": {"type": "string"}}
}
_RETRY_AFTER = {
    "retry-after": {
        "description": "Seconds to wait before a retry.",
        "schema": {"type": "integer", "minimum": 1},
    }
}
_PARAMETERS = {
    "request_id": {
        "name": "x-request-id",
        "in": "header",
        "description": "Up to 64 letters, digits and `._:-`. The response and the access log have it. Another value is "
        "replaced.",
        "schema": {"type": "string"},
    },
    "timeout": {
        "name": "x-request-timeout-ms",
        "in": "header",
        "description": "Milliseconds after which the request gets status 504, if the server's own deadline is not "
        "earlier.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    },
    "top_k": {
        "name": "top_k",
        "in": "query",
        "description": "How many classes, the most probable first, have their probabilities in a prediction.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    },
    "format": {
        "name": "format",
        "in": "query",
        "description": "Return each prediction in the form of Hugging Face.",
        "schema": {"enum": ["huggingface"]},
    },
    "json_length": {
        "name": "inference-header-content-length",
        "in": "header",
        "description": "Bytes of the JSON, if the data of tensors follows it.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    },
}


def _class(classes: Sequence[str]) -> dict[str, Any]:
    return {
        "name": "class",
        "in": "query",
        "description": "The class to explain; by default the most probable one of each image.",
        "schema": {"enum": list(classes)},
    }


# Errors


def _errors_of(needs_key: bool) -> tuple[type[RequestError], ...]:
    """Return the errors that a request to a worker can get."""
    never = _NEVER if needs_key else _NEVER | _KEY_ERRORS
    return tuple(error for error in (*WORKER_ERRORS, *REFUSALS) if error not in never)


def _responses(errors: Iterable[type[RequestError]], text_errors: bool = False) -> dict[str, Any]:
    """Return the responses with errors by status; `text_errors` are those of the Open Inference Protocol."""
    statuses = sorted({error.status for error in errors})
    return {str(s): _reference("responses", f"text-{s}" if text_errors else str(s)) for s in statuses}


def _by_status() -> dict[int, list[type[RequestError]]]:
    kinds = (*WORKER_ERRORS, *REFUSALS)
    return {status: [k for k in kinds if k.status == status] for status in sorted({kind.status for kind in kinds})}


def _meaning(status: int) -> str:
    return " ".join(f"`{kind.type}`: {_first_line(kind)}" for kind in _by_status()[status])


def _error_responses() -> dict[str, Any]:
    """Return all responses with errors. Those of the Open Inference Protocol come last."""
    responses = {}
    for status in _by_status():
        headers = _RESPONSE_HEADERS | (_RETRY_AFTER if status in _WITH_RETRY_AFTER else {})
        responses[str(status)] = {
            "description": _meaning(status),
            "headers": headers,
            "content": {JSON: {"schema": error_of(status)}},
        }
    texts = {"anyOf": [reference("TextError"), reference("Error")]}
    return responses | {
        f"text-{status}": {**response, "content": {JSON: {"schema": texts}}} for status, response in responses.items()
    }


def _first_line(documented: type) -> str:
    return (inspect.getdoc(documented) or "").splitlines()[0]
