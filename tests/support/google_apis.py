"""Google's descriptions of its APIs, as JSON Schemas that allow no other fields."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import jsonschema

Schema = dict[str, Any]


@functools.cache
def descriptions(api: str) -> dict[str, Schema]:
    """The schemas of an API such as "run.v1", by name, in Google's format. google-api-python-client contains them."""
    path = files("googleapiclient") / "discovery_cache" / "documents" / f"{api}.json"
    schemas: dict[str, Schema] = json.loads(path.read_text())["schemas"]
    return schemas


def validator(
    api: str, name: str, is_rejected: Callable[[Schema], bool] = lambda _schema: False
) -> jsonschema.Draft202012Validator:
    """Return a validator of the messages with this name; unknown fields and unknown values of an enum are errors.

    Args:
        api: such as "run.v1".
        name: of the schema.
        is_rejected: whether a field, given its schema, must not be used.
    """
    definitions = {name: _strict(schema, is_rejected) for name, schema in descriptions(api).items()}
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": definitions})


def _strict(schema: Schema, is_rejected: Callable[[Schema], bool]) -> Schema:
    if "$ref" in schema:
        return {"$ref": f"#/$defs/{schema['$ref']}"}
    strict = {key: schema[key] for key in ("type", "enum") if schema.get(key, "any") != "any"}
    if schema.get("format") == "int64":
        strict = {"type": ["string", "integer"], "pattern": "^[0-9]+$"}  # JSON allows both
    strict |= {key: _strict(schema[key], is_rejected) for key in ("items", "additionalProperties") if key in schema}
    if "properties" in schema:
        supported = {name: field for name, field in schema["properties"].items() if not is_rejected(field)}
        strict["properties"] = {name: _strict(field, is_rejected) for name, field in supported.items()}
        strict["additionalProperties"] = False
    return strict
