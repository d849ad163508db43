"""Requests to a running TorchServe."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote, urlencode

from vinegrape_handler.contract import SELF_CHECK_HEADER, SelfCheckAnswer
from vinegrape_server.errors import ServeError
from vinegrape_server.host.http import Address, HttpResponse, get, post, send
from vinegrape_server.plan import Plan, Served
from vinegrape_server.torchserve import configuration
from vinegrape_server.torchserve.own_requests import OwnRequests

PING_TIMEOUT_S = 1
_SELF_CHECK_TIMEOUT_S = 10
_QUEUE_TIMEOUT_S = 1
_METRICS_TIMEOUT_S = 2
_MANAGEMENT_TIMEOUT_S = 30  # TorchServe unpacks an archive before it responds
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


@dataclass(frozen=True)
class LoadedVersion:
    """A version of the model that TorchServe has loaded.

    Attributes:
        queued: requests that wait for its workers.
        workers: process ids of its workers.
    """

    queued: int
    workers: frozenset[int]


class TorchServeClient:
    """Sends requests to the ports of one TorchServe.

    Args:
        served: what is served.
        folder: the folder of its instance.
        entry: where self-checks are sent to: the edge, or TorchServe if None.

    Attributes:
        own_requests: the number of requests that this client has sent.
    """

    def __init__(self, served: Served, folder: Path, entry: Address | None = None) -> None:
        self.own_requests = OwnRequests()
        self._served = served
        plan = served.plan
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
        return self._self_check(token, self._entry, self._path, self._served.version)

    def self_check_of(self, version: str, token: str) -> int | None:
        """Run a self-check in a worker of a version that is loaded. The request goes to TorchServe itself.

        Args:
            version: of the model.
            token: the token that the workers were started with.

        Returns:
            The process id of the worker that has passed the check; None if no worker has passed it.
        """
        return self._self_check(token, self._rest, f"{self._path}/{quote(version, safe='')}", version).worker

    def first_self_check(self, token: str) -> int | None:
        """Run a self-check during the start. The request goes to TorchServe itself.

        Args:
            token: the token that the workers were started with.

        Returns:
            The process id of the worker that has passed the check; None if no worker has passed it.

        Raises:
            ServeError: the handler in the archive does not support self-checks.
        """
        result = self._self_check(token, self._rest, self._path, self._served.version)
        if result.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNSUPPORTED_MEDIA_TYPE):
            if not self._body:
                raise ServeError(
                    f"The handler in {self._served.plan.archive.path} is older than this server. Update it with: "
                    "vinegrape archive OLD.mar NEW.mar"
                )
            self._body = b""  # an older handler takes the body for an image
        return result.worker

    @property
    def _name(self) -> str:
        return self._served.plan.archive.metadata.name

    @property
    def _path(self) -> str:
        return f"/predictions/{self._name}"

    def _self_check(self, token: str, address: Address, path: str, version: str) -> SelfCheckResult:
        headers = {SELF_CHECK_HEADER: token}
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
        return SelfCheckResult(response.status, answer.worker if answer.version == version else None)

    def queued_requests(self) -> int:
        """Return how many requests wait in TorchServe's queues.

        Raises:
            OSError, ValueError, LookupError, TypeError: the management port does not respond, or not as expected.
        """
        versions = self.versions()
        if not versions:
            raise LookupError("TorchServe has not loaded the model.")
        return sum(version.queued for version in versions.values())

    def versions(self) -> dict[str, LoadedVersion]:
        """Return the versions of the model that TorchServe has loaded, by name.

        Raises:
            OSError, ValueError, LookupError, TypeError: the management port does not respond, or not as expected.
        """
        response = self.own_requests.count(lambda: get(self._management, f"/models/{self._name}/all", _QUEUE_TIMEOUT_S))
        return {
            str(version["modelVersion"]): LoadedVersion(
                int(version["jobQueueStatus"]["pendingRequests"]),
                frozenset(int(worker["pid"]) for worker in version["workers"]),
            )
            for version in json.loads(response.body)
        }

    def register(self, file: str, plan: Plan) -> None:
        """Load an archive beside the version that answers. Its workers start in the background.

        Args:
            file: name of the archive in TorchServe's store.
            plan: how many workers it gets, and their settings.

        Raises:
            ServeError: TorchServe does not load it.
        """
        settings = plan.settings
        query = urlencode(
            {
                "url": file,
                "model_name": plan.archive.metadata.name,
                "initial_workers": settings.workers,
                "synchronous": "false",
                "batch_size": settings.batch_size,
                "max_batch_delay": settings.max_batch_delay_ms,
                "response_timeout": settings.response_timeout_s,
                "startup_timeout": settings.startup_timeout_s,
            }
        )
        self._manage("POST", f"/models?{query}")

    def set_default(self, version: str) -> None:
        """Let a version that is loaded answer the requests from now on.

        Raises:
            ServeError: TorchServe does not do so.
        """
        self._manage("PUT", f"/models/{self._name}/{quote(version, safe='')}/set-default")

    def unregister(self, version: str) -> None:
        """End the workers of a version. Requests that they have are lost.

        Raises:
            ServeError: TorchServe does not do so.
        """
        self._manage("DELETE", f"/models/{self._name}/{quote(version, safe='')}")

    def _manage(self, method: str, path: str) -> None:
        try:
            response = self.own_requests.count(lambda: send(method, self._management, path, _MANAGEMENT_TIMEOUT_S))
        except OSError as error:
            raise ServeError(f"TorchServe does not respond to {method} {path}: {error}") from error
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise ServeError(f"TorchServe responded to {method} {path} with {response.status}: {_message(response)}")

    def metrics_text(self) -> str:
        """Return the text of TorchServe's metrics port.

        Raises:
            OSError: the port does not respond, or with a status other than 200.
        """
        response = self.own_requests.count(lambda: get(self._metrics, "/metrics", _METRICS_TIMEOUT_S))
        if response.status != HTTPStatus.OK:
            raise ConnectionError(f"TorchServe's metrics port responded with status {response.status} instead of 200.")
        return response.body.decode()


def _message(response: HttpResponse) -> str:
    try:
        return str(json.loads(response.body)["message"])
    except (ValueError, LookupError, TypeError):
        return response.body.decode(errors="replace")[:200]
