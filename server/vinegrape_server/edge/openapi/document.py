"""The OpenAPI document: every path of the edge with its methods, parameters, bodies and errors."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
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

JSON, HTML = "application/json", "text/html"
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp", "image/bmp", "image/tiff")

Operation = dict[str, Any]

# No offered path and method gets these two. A request without a key can only fail where keys are required
_NEVER = {NotFound, MethodNotAllowed}
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
        "tags": [{"name": name} for name in ("Images", "Model", "Server")],
        "paths": _paths(metadata.name, _errors_of(bool(settings.api_keys))),
        "components": {
            "schemas": make_schemas(metadata, settings.worker),
            "responses": {str(status): _error_response(status, kinds) for status, kinds in _by_status().items()},
            "parameters": {"request_id": _REQUEST_ID, "timeout": _TIMEOUT},
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


def _paths(model: str, errors: tuple[type[RequestError], ...]) -> dict[str, dict[str, Operation]]:
    """Return the operations of each path.

    Args:
        model: name of the model.
        errors: what a request to a worker can get.
    """
    classify = {
        "requestBody": {
            "required": True,
            "description": "One image, or several images as JSON.",
            "content": {
                **{name: {} for name in IMAGE_TYPES},
                "multipart/form-data": {"schema": reference("Form")},
                JSON: {"schema": reference("Instances")},
            },
        },
        "responses": {
            "200": {
                "description": "One prediction; for JSON one result per instance.",
                "headers": _RESPONSE_HEADERS,
                "content": {JSON: {"schema": {"anyOf": [reference("Prediction"), reference("Predictions")]}}},
            },
            **_responses(errors),
        },
    }
    explained = (
        "An image or JSON is recognised by its first bytes, whatever its content type is. "
        "A JSON request gets status 200 even if some of its images get an error."
    )
    describe = _get("The description of the model", {JSON: reference("ModelDescription")}, errors)
    ping = _get("Whether the server is ready", {JSON: reference("Health")}, (*_STATIC_ERRORS, Unavailable))
    paths = {
        f"/predictions/{model}": {
            "post": _operation("Images", "Classify images", classify, explained),
            "put": _operation("Images", "Classify images; for clients that upload with PUT, as curl -T", classify),
            **_with_head(_operation("Model", "Describe the model", describe)),
        },
        f"/v1/models/{model}:predict": {
            "post": _operation("Images", "Classify images; KServe's version 1 and Vertex AI", classify),
        },
        "/ping": _with_head(_operation("Server", "Check whether the server is ready", ping, needs_key=False)),
        "/openapi.json": _static("Get this description", JSON, {"type": "object"}),
        "/docs": _static("Read this description as a page", HTML, {"type": "string"}),
    }
    for path, operations in paths.items():
        for method, operation in operations.items():
            operation["operationId"] = f"{method}_{path.strip('/').replace('/', '_').replace(':', '_')}"
    return paths


def _operation(tag: str, summary: str, rest: Operation, description: str = "", needs_key: bool = True) -> Operation:
    return {
        "tags": [tag],
        "summary": summary,
        **({"description": description} if description else {}),
        "parameters": [{"$ref": "#/components/parameters/request_id"}, {"$ref": "#/components/parameters/timeout"}],
        **rest,
        **({} if needs_key else {"security": []}),
    }


def _get(description: str, content: Mapping[str, Any], errors: Iterable[type[RequestError]]) -> Operation:
    return {
        "responses": {
            "200": {
                "description": description,
                "headers": _RESPONSE_HEADERS,
                "content": {media_type: {"schema": schema} for media_type, schema in content.items()},
            },
            **_responses(errors),
        }
    }


def _static(summary: str, media_type: str, schema: Mapping[str, Any]) -> dict[str, Operation]:
    return _with_head(
        _operation("Server", summary, _get("A file", {media_type: schema}, _STATIC_ERRORS), needs_key=False)
    )


def _with_head(get: Operation) -> dict[str, Operation]:
    """Return GET and HEAD; the response to HEAD has the same status and headers, and no body."""
    responses = get["responses"]
    ok = {name: value for name, value in responses["200"].items() if name != "content"}
    bodiless = {
        "200": ok,
        **{status: {"description": _meaning(int(status))} for status in responses if status != "200"},
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
_REQUEST_ID = {
    "name": "x-request-id",
    "in": "header",
    "description": "Up to 64 letters, digits and ._:-; the response and the access log have it. Another value is replaced.",
    "schema": {"type": "string"},
}
_TIMEOUT = {
    "name": "x-request-timeout-ms",
    "in": "header",
    "description": "Milliseconds after which the request gets status 504, if the server's own deadline is not earlier.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
}


# Errors


def _errors_of(needs_key: bool) -> tuple[type[RequestError], ...]:
    """Return the errors that a request to a worker can get."""
    never = _NEVER if needs_key else _NEVER | _KEY_ERRORS
    return tuple(error for error in (*WORKER_ERRORS, *REFUSALS) if error not in never)


def _responses(errors: Iterable[type[RequestError]]) -> dict[str, Any]:
    statuses = sorted({error.status for error in errors})
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _by_status() -> dict[int, list[type[RequestError]]]:
    kinds = (*WORKER_ERRORS, *REFUSALS)
    return {status: [k for k in kinds if k.status == status] for status in sorted({kind.status for kind in kinds})}


def _meaning(status: int) -> str:
    return " ".join(f"`{kind.type}`: {_first_line(kind)}" for kind in _by_status()[status])


def _error_response(status: int, kinds: Iterable[type[RequestError]]) -> dict[str, Any]:
    return {
        "description": _meaning(status),
        "headers": _RESPONSE_HEADERS | (_RETRY_AFTER if status in _WITH_RETRY_AFTER else {}),
        "content": {JSON: {"schema": error_of(status)}},
    }


def _first_line(documented: type) -> str:
    return (inspect.getdoc(documented) or "").splitlines()[0]
