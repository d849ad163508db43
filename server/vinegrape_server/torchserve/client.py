"""Requests to a running TorchServe."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from vinegrape_handler.contract import SELF_CHECK_HEADER, SelfCheckAnswer
from vinegrape_server.errors import ServeError
from vinegrape_server.host.http import Address, get, post
from vinegrape_server.plan import Plan
from vinegrape_server.torchserve import configuration
from vinegrape_server.torchserve.own_requests import OwnRequests

PING_TIMEOUT_S = 1
_SELF_CHECK_TIMEOUT_S = 10
_QUEUE_TIMEOUT_S = 1
_METRICS_TIMEOUT_S = 2
# A self-check has a body, as the requests of clients have: without memory for bodies, TorchServe still answers GET
_SELF_CHECK_BYTES = 1_000_000


@dataclass(frozen=True)
class SelfCheckResult:
    """The response to a self-check.

    Attributes:
        status: the response's status; 0 if there was no response in time.
        worker: process id of the worker that has passed the check; None if no worker has passed it.
    """

    status: int
    worker: int | None


class TorchServeClient:
    """Sends requests to the ports of one TorchServe.

    Args:
        plan: what this TorchServe was started with.
        folder: the folder of its instance.
        entry: where self-checks are sent to: the edge, or TorchServe if None.

    Attributes:
        own_requests: the number of requests that this client has sent.
    """

    def __init__(self, plan: Plan, folder: Path, entry: Address | None = None) -> None:
        self.own_requests = OwnRequests()
        self._archive = plan.archive
        self._rest = Address(plan.settings.host_of("rest_port"), plan.settings.rest_port)
        self._entry = entry or self._rest
        self._management = configuration.management(plan, folder)
        self._metrics = configuration.metrics(plan, folder)
        self._body = bytes(min(_SELF_CHECK_BYTES, plan.settings.max_request_bytes))

    def ping(self) -> bool:
        """Return whether the frontend responds within `PING_TIMEOUT_S`, with any status."""
        with contextlib.suppress(OSError):
            self.own_requests.count(lambda: get(self._rest, "/ping", PING_TIMEOUT_S))
            return True
        return False

    def self_check(self, token: str) -> SelfCheckResult:
        """Run a self-check in one of the workers. The request takes the same way as those of clients.

        Args:
            token: the token that the workers were started with.
        """
        return self._self_check(token, self._entry)

    def first_self_check(self, token: str) -> int | None:
        """Run a self-check during the start. The request goes to TorchServe itself.

        Args:
            token: the token that the workers were started with.

        Returns:
            The process id of the worker that has passed the check; None if no worker has passed it.

        Raises:
            ServeError: the handler in the archive does not support self-checks.
        """
        result = self._self_check(token, self._rest)
        if result.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNSUPPORTED_MEDIA_TYPE):
            if not self._body:
                raise ServeError(
                    f"The handler in {self._archive.path} is older than this server. Update it with: "
                    "vinegrape archive OLD.mar NEW.mar"
                )
            self._body = b""  # an older handler takes the body for an image
        return result.worker

    def _self_check(self, token: str, address: Address) -> SelfCheckResult:
        path, headers = f"/predictions/{self._archive.metadata.name}", {SELF_CHECK_HEADER: token}
        try:
            if body := self._body:
                headers["Content-Type"] = "application/octet-stream"
                response = self.own_requests.count(
                    lambda: post(address, path, _SELF_CHECK_TIMEOUT_S, body, headers), prediction=True
                )
            else:
                response = self.own_requests.count(
                    lambda: get(address, path, _SELF_CHECK_TIMEOUT_S, headers), prediction=True
                )
        except OSError:
            return SelfCheckResult(0, None)
        try:
            answer = SelfCheckAnswer.from_body(json.loads(response.body))
        except (ValueError, LookupError, TypeError):  # the error of TorchServe or of the edge
            return SelfCheckResult(response.status, None)
        passed = answer.version == self._archive.metadata.version
        return SelfCheckResult(response.status, answer.worker if passed else None)

    def queued_requests(self) -> int:
        """Return how many requests wait in TorchServe's queue.

        Raises:
            OSError, ValueError, LookupError, TypeError: the management port does not respond, or not as expected.
        """
        path = f"/models/{self._archive.metadata.name}"
        response = self.own_requests.count(lambda: get(self._management, path, _QUEUE_TIMEOUT_S))
        return int(json.loads(response.body)[0]["jobQueueStatus"]["pendingRequests"])

    def metrics_text(self) -> str:
        """Return the text of TorchServe's metrics port.

        Raises:
            OSError: the port does not respond, or with a status other than 200.
        """
        response = self.own_requests.count(lambda: get(self._metrics, "/metrics", _METRICS_TIMEOUT_S))
        if response.status != HTTPStatus.OK:
            raise ConnectionError(f"TorchServe's metrics port responded with status {response.status} instead of 200.")
        return response.body.decode()
