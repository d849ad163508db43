"""Requests to a running TorchServe."""

from __future__ import annotations

import contextlib
import json
from http import HTTPStatus

from vinegrape_handler.contract import SELF_CHECK_HEADER, SelfCheckAnswer
from vinegrape_server.errors import ServeError
from vinegrape_server.host.http import get
from vinegrape_server.plan import Plan
from vinegrape_server.settings import LOOPBACK

PING_TIMEOUT_S = 1
_SELF_CHECK_TIMEOUT_S = 5
_QUEUE_TIMEOUT_S = 1
_METRICS_TIMEOUT_S = 2


class TorchServeClient:
    """Sends requests to the ports of one TorchServe.

    Args:
        plan: what this TorchServe was started with.
    """

    def __init__(self, plan: Plan) -> None:
        self._settings = plan.settings
        self._archive = plan.archive

    def ping(self) -> bool:
        """Return whether the frontend responds within `PING_TIMEOUT_S`, with any status."""
        with contextlib.suppress(OSError):
            get(self._settings.host, self._settings.rest_port, "/ping", PING_TIMEOUT_S)
            return True
        return False

    def self_check(self, token: str) -> int | None:
        """Run a self-check in one of the workers.

        Args:
            token: the token that the workers were started with.

        Returns:
            The process id of the worker that has passed the check; None if no worker has passed it.

        Raises:
            ServeError: the handler in the archive does not support self-checks.
        """
        path = f"/predictions/{self._archive.metadata.name}"
        host, port = self._settings.host, self._settings.rest_port
        try:
            response = get(host, port, path, _SELF_CHECK_TIMEOUT_S, {SELF_CHECK_HEADER: token})
        except OSError:
            return None
        if response.status == HTTPStatus.BAD_REQUEST:
            raise ServeError(
                f"The handler in {self._archive.path} is older than this server. Update it with: "
                "vinegrape archive OLD.mar NEW.mar"
            )
        try:
            answer = SelfCheckAnswer.from_body(json.loads(response.body))
        except (ValueError, LookupError, TypeError):  # TorchServe's own error response while the model loads
            return None
        return answer.worker if answer.version == self._archive.metadata.version else None

    def queued_requests(self) -> int:
        """Return how many requests wait in TorchServe's queue.

        Raises:
            OSError, ValueError, LookupError, TypeError: the management port does not respond, or not as expected.
        """
        path = f"/models/{self._archive.metadata.name}"
        response = get(LOOPBACK, self._settings.management_port, path, _QUEUE_TIMEOUT_S)
        return int(json.loads(response.body)[0]["jobQueueStatus"]["pendingRequests"])

    def metrics_text(self) -> str:
        """Return the text of TorchServe's metrics port.

        Raises:
            OSError: the port does not respond, or with a status other than 200.
        """
        response = get(LOOPBACK, self._settings.metrics_port, "/metrics", _METRICS_TIMEOUT_S)
        if response.status != HTTPStatus.OK:
            raise ConnectionError(f"TorchServe's metrics port responded with status {response.status} instead of 200.")
        return response.body.decode()
