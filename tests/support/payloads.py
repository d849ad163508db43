"""Request bodies with several images."""

import base64
import json
from typing import Any


def b64(data: bytes) -> dict[str, str]:
    """Return one instance: an encoded image in base64."""
    return {"b64": base64.b64encode(data).decode()}


def instances(*values: Any) -> bytes:
    """Return the JSON body `{"instances": [...]}`. Bytes become base64; other values are not changed."""
    return json.dumps({"instances": [b64(value) if isinstance(value, bytes) else value for value in values]}).encode()
