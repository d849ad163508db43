"""Choose between the media types that a request accepts (RFC 9110, section 12.5.1)."""

from __future__ import annotations

from collections.abc import Collection


def preferred(accept: str, offered: Collection[str]) -> str | None:
    """Return the offered media type that a header `Accept` prefers, or None if it names none of them.

    The highest quality counts; of equal ones, the one that the client names first. `*/*` names none: most programs send
    it without a choice of their own.

    Args:
        accept: the header's value; may be empty.
        offered: media types in lower case, without parameters.
    """
    qualities: dict[str, float] = {}
    for item in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in item.split(";"))
        if media_type in offered and media_type not in qualities:
            qualities[media_type] = _quality(parameters)
    best = max(qualities, key=qualities.__getitem__, default=None)
    return best if best and qualities[best] > 0 else None


def _quality(parameters: Collection[str]) -> float:
    """Return the number of the parameter `q`: 1 if there is none, and 0 if it is not a number."""
    values = [value for name, _, value in (parameter.partition("=") for parameter in parameters) if name == "q"]
    try:
        return float(values[0]) if values else 1.0
    except ValueError:
        return 0.0
