"""The deadline of a request, which the edge and the gateway state."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from vinegrape_handler.contract import DEADLINE_HEADER
from vinegrape_handler.errors import DeadlineExceeded


def read_deadline(headers: Mapping[str, Any]) -> float:
    """Return the Unix time in seconds after which a request is not started; infinity if it has no valid deadline."""
    try:
        return float(headers[DEADLINE_HEADER]) / 1000
    except (KeyError, TypeError, ValueError):
        return math.inf


def check_deadline(deadline: float) -> None:
    """Check that a deadline, a Unix time in seconds, has not passed.

    Raises:
        DeadlineExceeded: it has.
    """
    if time.time() > deadline:
        raise DeadlineExceeded("The request's deadline passed before the server had classified its images.")
