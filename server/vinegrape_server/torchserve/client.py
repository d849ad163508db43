"""Requests to a running TorchServe."""

from __future__ import annotations

import contextlib
import json
from http import HTTPStatus
from pathlib import Path

from vinegrape_handler.contract import SELF_CHECK_HEADER, SelfCheckAnswer
from vinegrape_server.errors import ServeError
from vinegrape_server.host.http import Address, get
from vinegrape_server.plan import Plan
from vinegrape_server.torchserve import configuration

PING_TIMEOUT_S = 1
_SELF_CHECK_TIMEOUT_S = 5
_QUEUE_TIMEOUT_S = 1
_METRICS_TIMEOUT_S = 2


class TorchServeClient:
    """Sends requests to the ports of one TorchServe.

    Args:
        plan: what this TorchServe was started with.
        folder: the folder of its instance.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._archive = plan.archive
        self._rest = Address(plan.settings.host_of("rest_port"), plan.settings.rest_port)
        self._management = configuration.management(plan, folder)
        self._metrics = configuration.metrics(plan, folder)

    def ping(self) -> bool:
        """Return whether the frontend responds within `PING_TIMEOUT_S`, with any status."""
        with contextlib.suppress(OSError):
            get(self._rest, "/ping", PING_TIMEOUT_S)
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
        try:
            response = get(self._rest, path, _SELF_CHECK_TIMEOUT_S, {SELF_CHECK_HEADER: token})
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
        response = get(self._management, path, _QUEUE_TIMEOUT_S)
        return int(json.loads(response.body)[0]["jobQueueStatus"]["pendingRequests"])

    def metrics_text(self) -> str:
        """Return the text of TorchServe's metrics port.

        Raises:
            OSError: the port does not respond, or with a status other than 200.
        """
        response = get(self._metrics, "/metrics", _METRICS_TIMEOUT_S)
        if response.status != HTTPStatus.OK:
            raise ConnectionError(f"TorchServe's metrics port responded with status {response.status} instead of 200.")
        return response.body.decode()
