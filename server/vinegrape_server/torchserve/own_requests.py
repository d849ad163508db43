"""Counts this server's own requests to TorchServe, so that its metrics can show the requests of clients alone."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus

from vinegrape_server.host.http import HttpResponse

# Statuses of TorchServe's responses to predictions that it has counted: answered, worker died, queue full
_COUNTED = {HTTPStatus.OK, HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE}


class OwnRequests:
    """Numbers of requests by what TorchServe has counted.

    A request is counted before it is sent. While it is in flight, the requests of clients can appear as one too few,
    but never as one too many: counters must not decrease.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._responses: Counter[str] = Counter()
        self._predictions = 0

    def responses(self, digit: str) -> int:
        """Return the number of responses whose status begins with a digit."""
        with self._lock:
            return self._responses[digit]

    def predictions(self) -> int:
        """Return the number of requests for the model."""
        with self._lock:
            return self._predictions

    def count(self, send: Callable[[], HttpResponse], prediction: bool = False) -> HttpResponse:
        """Send a request, count it, and return its response.

        Args:
            send: sends the request; raises an OSError if there is no response.
            prediction: whether it is a request for the model.

        Raises:
            OSError: there is no response.
        """
        self._add("2", prediction, 1)
        try:
            response = send()
        except OSError:
            self._add("2", prediction, -1)
            raise
        self._add("2", prediction and response.status not in _COUNTED, -1)
        self._add(str(response.status)[0], False, 1)
        return response

    def _add(self, digit: str, prediction: bool, number: int) -> None:
        with self._lock:
            self._responses[digit] += number
            self._predictions += number * prediction
