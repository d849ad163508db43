"""Read the images of a form (multipart/form-data, RFC 7578) that arrived as the body of a request."""

from __future__ import annotations

import encodings.aliases
from collections.abc import Collection

from vinegrape_handler.errors import BadRequest

MEDIA_TYPE = "multipart/form-data"

_MAX_FIELDS = 16
_MAX_FIELD_HEADERS = 8
_MAX_FIELD_HEADER_BYTES = 4096
# As in RFC 2045. Others, such as base64, are not used in forms (RFC 7578, 4.7)
_TRANSFER_ENCODINGS = ("", "7bit", "8bit", "binary")
# `codecs.lookup` would keep each unknown name in memory
_CHARSETS = frozenset(encodings.aliases.aliases) | frozenset(encodings.aliases.aliases.values())


def read_form(body: bytes, content_type: str, names: Collection[str]) -> list[tuple[str, bytes]]:
    """Return the name and content of some fields of a form, in their order. Other fields and empty ones are left out.

    Args:
        body: the form.
        content_type: the request's content type, which contains the boundary.
        names: the names of the fields to return.

    Raises:
        BadRequest: the form cannot be read.
    """
    import multipart  # only forms need it, and a stock TorchServe does not have it

    _, options = multipart.parse_options_header(content_type)
    boundary = options.get("boundary", "")
    if not boundary:
        raise BadRequest(
            f"The content type is {_quote(content_type)}, without a boundary. Let your HTTP client set the content "
            "type of a form, or send the image itself as the body."
        )
    fields = []
    try:
        _check_charset(options.get("charset"))
        parser = multipart.PushMultipartParser(
            boundary,
            max_header_size=_MAX_FIELD_HEADER_BYTES,
            max_header_count=_MAX_FIELD_HEADERS,
            max_segment_count=_MAX_FIELDS,
        )
        with parser:
            name = ""
            # As one chunk the body is not copied, and each field arrives in one piece
            for event in parser.parse(body):
                if isinstance(event, multipart.MultipartSegment):
                    name = event.name or ""
                    _check_charset(event.charset)
                    _check_transfer_encoding(dict(event.headerlist).get("Content-Transfer-Encoding", ""))
                elif event and name in names:
                    fields.append((name, event))
    except multipart.ParserLimitReached as error:
        raise BadRequest(
            f"The form cannot be read: {error.args[0]}. A form may have {_MAX_FIELDS} fields, and a field "
            f"{_MAX_FIELD_HEADERS} headers of {_MAX_FIELD_HEADER_BYTES} bytes."
        ) from error
    except multipart.MultipartError as error:
        raise BadRequest(f"The form cannot be read: {error.args[0]}. Its boundary is {_quote(boundary)}.") from error
    return fields


def _check_charset(charset: str | None) -> None:
    if charset and encodings.normalize_encoding(charset).lower() not in _CHARSETS:
        raise BadRequest(f"The form cannot be read: the charset {_quote(charset)} is unknown.")


def _check_transfer_encoding(encoding: str) -> None:
    if encoding.lower() not in _TRANSFER_ENCODINGS:
        raise BadRequest(
            f"The form cannot be read: a field has the Content-Transfer-Encoding {_quote(encoding)}. Send the bytes of "
            "the image without it."
        )


def _quote(text: str) -> str:
    """Quote a text of the client for an error message, and shorten it."""
    return repr(text if len(text) <= 80 else f"{text[:80]}...")
