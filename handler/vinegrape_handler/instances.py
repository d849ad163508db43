"""Read the images of a JSON request: `{"instances": [{"b64": "..."}]}`."""

from __future__ import annotations

import binascii
import json
from collections.abc import Mapping
from typing import Any

from vinegrape_handler.errors import BadRequest, NoImage, RequestError, TooLarge

FORM = '{"instances": [{"b64": "..."}]}'

# Python needs up to 36 bytes of memory per byte of JSON, for `[[],[],...]`. The number of values is limited before the
# JSON is parsed. Clients may add some keys of their own to each instance and to the request.
_MAX_VALUES = 1000
_MAX_VALUES_PER_INSTANCE = 100

_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_WHITESPACE = b" \t\r\n\v\f"


def max_values(max_instances: int) -> int:
    """Return how many values the JSON of a request with this number of images may have."""
    return _MAX_VALUES + _MAX_VALUES_PER_INSTANCE * max_instances


def parse_json(body: bytes | bytearray, most: int, form: str = FORM, more_commas: int = 0) -> Any:
    """Parse the JSON of a request.

    Args:
        body: JSON in UTF-8, with or without a byte order mark.
        most: maximum number of values; more need not be parsed.
        form: what the JSON should look like, for the message of an error.
        more_commas: how many values may be in the JSON in addition that are neither lists nor objects.

    Raises:
        BadRequest: the JSON is invalid, or contains more values than any valid request.
    """
    # Each value follows a bracket, a comma, or a key; and each key follows a brace or a comma. Base64 has none of them
    values = body.count(b"{") + body.count(b"[") + max(0, body.count(b",") - more_commas)
    if values > most:
        raise BadRequest(f"The JSON has {values} values; at most {most} are accepted. It must be {form}.")
    if b"\0" in body[:4]:
        raise BadRequest("The JSON is encoded as UTF-16 or UTF-32; it must be UTF-8.")
    try:
        return json.loads(str(body, "utf-8-sig"), object_pairs_hook=_unique_keys)
    except UnicodeDecodeError as error:
        raise BadRequest(f"The JSON is not encoded as UTF-8: byte {error.start} is not valid.") from error
    except json.JSONDecodeError as error:
        raise BadRequest(f"The JSON cannot be read: {error}") from error
    except RecursionError as error:
        raise BadRequest("The JSON cannot be read: it is nested too deeply.") from error
    except ValueError as error:  # Python limits the number of an integer's digits
        raise BadRequest("The JSON cannot be read: a number has too many digits.") from error


def read_instances(body: Mapping[str, Any], max_instances: int) -> tuple[bytes | RequestError, ...]:
    """Return the encoded images of a parsed request; an error takes the place of an image that could not be read.

    Raises:
        BadRequest: the JSON has another form.
        NoImage: there are no instances.
        TooLarge: there are too many instances.
    """
    instances = body.get("instances")
    if not isinstance(instances, list):
        raise BadRequest(f'The JSON has no list "instances"; it must be {FORM}.')
    if not instances:
        raise NoImage('The list "instances" is empty.')
    if len(instances) > max_instances:
        raise TooLarge(f"The request has {len(instances)} instances; at most {max_instances} are accepted.")
    return tuple(_read_instance(instance) for instance in instances)


def decode_base64(text: str) -> bytes:
    """Decode base64 as clients write it: with line breaks, in the URL-safe alphabet, without padding, or as a data URL.

    Raises:
        ValueError: the text is not base64.
    """
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        if text[:5].lower() == "data:":
            head, comma, text = text.partition(",")
            if not (comma and head.lower().endswith(";base64")):
                raise ValueError("the data URL does not contain ';base64,'") from None
        data = text.encode("ascii").translate(_URL_SAFE, _WHITESPACE)
        return binascii.a2b_base64(data + b"=" * (-len(data) % 4), strict_mode=True)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object of the JSON. Of two equal keys, one would be ignored without an error."""
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise BadRequest(f"The JSON has the key {json.dumps(repeated[:40])} more than once in one object.")
    return result


def _read_instance(instance: Any) -> bytes | RequestError:
    text = instance.get("b64") if isinstance(instance, dict) else None
    if not isinstance(text, str):
        return BadRequest('The instance must be {"b64": "..."}, with the image in base64.')
    try:
        return decode_base64(text)
    except UnicodeEncodeError:
        return BadRequest("The instance's b64 is not valid base64: it has a character that is not ASCII.")
    except ValueError as error:
        return BadRequest(f"The instance's b64 is not valid base64: {error}")
