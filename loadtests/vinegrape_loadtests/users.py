"""Locust users: they send the sample requests over REST or gRPC, and check each response."""

# mypy: disable-error-code="arg-type, no-untyped-call, str-bytes-safe"
# Locust's and gRPC's types are incomplete

from __future__ import annotations

import ssl
from functools import partial
from http import HTTPStatus
from pathlib import Path

import gevent
import gevent.ssl
import grpc
from geventhttpclient._parser import HTTPParseError
from locust import FastHttpUser, User, tag, task
from locust.env import Environment
from locust.exception import StopUser

from vinegrape_client.inference_pb2 import PredictionsRequest
from vinegrape_client.inference_pb2_grpc import InferenceAPIsServiceStub
from vinegrape_loadtests.client import MODEL_NAME, PREDICTIONS_PATH, HttpResponse
from vinegrape_loadtests.current_run import CurrentRun
from vinegrape_loadtests.pace import RunEnded, now
from vinegrape_loadtests.response_checks import RequestRefused, WrongResponse, read_grpc_error
from vinegrape_loadtests.sample_requests import SampleRequest, make_sample_requests
from vinegrape_loadtests.settings import grpc_address
from vinegrape_loadtests.thresholds import REFUSED

# At import, before Locust forks: all its processes share the memory, and start together
REQUESTS = make_sample_requests()


class BaseUser(User):
    """The tasks of every user, with their weights."""

    abstract = True
    due = 0.0  # when the current request was due
    retry_after_s = 0  # how long the server has told this user to wait

    def wait_time(self) -> float:
        """Wait until this user may send its next request."""
        if self.retry_after_s:
            CurrentRun.pace.pause(self.retry_after_s)
            self.retry_after_s = 0
        try:
            self.due = CurrentRun.pace.next()
        except RunEnded:
            raise StopUser from None
        return 0

    def on_start(self) -> None:
        """Wait before the first request too."""
        self.wait()

    def send(self, request: SampleRequest) -> None:
        """Send one request, check the response and report the result to Locust."""
        raise NotImplementedError

    @tag("png")
    @task(8)
    def png(self) -> None:
        """Send a leaf as PNG."""
        self.send(REQUESTS["png"])

    @tag("jpeg")
    @task(6)
    def jpeg(self) -> None:
        """Send a leaf as JPEG, the most common format."""
        self.send(REQUESTS["jpeg"])

    @tag("photo")
    @task(2)
    def photo(self) -> None:
        """Send a 12-megapixel photo."""
        self.send(REQUESTS["photo"])

    @tag("instances")
    @task(2)
    def instances(self) -> None:
        """Send two valid and two invalid images in one request."""
        self.send(REQUESTS["instances"])

    @tag("broken")
    @task
    def cut(self) -> None:
        """Send a truncated PNG."""
        self.send(REQUESTS["cut"])

    @tag("broken")
    @task
    def text(self) -> None:
        """Send text instead of an image."""
        self.send(REQUESTS["text"])

    def latency_ms(self) -> float:
        """Return the milliseconds since the current request was due."""
        return (now() - self.due) * 1000


class RestUser(BaseUser, FastHttpUser):
    """Sends requests over REST, on one connection per user."""

    insecure = False

    def __init__(self, environment: Environment) -> None:
        """Create the client."""
        settings = CurrentRun.settings
        self.default_headers = {"X-Api-Key": settings.api_key} if settings.api_key else None
        self.ssl_context_factory = partial(_trust, settings.ca_file)
        super().__init__(environment)

    def send(self, request: SampleRequest) -> None:
        """Send the request's body as it is."""
        with (
            gevent.Timeout(CurrentRun.settings.timeout_s),
            self.client.post(
                PREDICTIONS_PATH,
                data=request.body,
                headers={"Content-Type": request.content_type},
                name=request.name,
                catch_response=True,
            ) as response,
        ):
            response.request_meta["response_time"] = self.latency_ms()
            problem = response.request_meta["exception"]
            if problem and (not response.status_code or isinstance(problem, HTTPParseError)):
                response.failure(problem)  # no connection, a timeout, or an incomplete response
                return
            retry_after = response.headers.get("retry-after", "")
            received = HttpResponse(response.status_code, response.content or b"", retry_after)
            try:
                CurrentRun.checker.check(request, received)
            except WrongResponse as error:
                response.failure(str(error))
            except RequestRefused as refusal:
                self.retry_after_s = refusal.retry_after_s
                response.request_meta["request_type"] += REFUSED
                response.success()
            else:
                response.success()


def _trust(ca_file: str, cafile: str | None = None) -> ssl.SSLContext:
    """Return a context that trusts one authority, or those of `cafile`, which the HTTP client passes."""
    context: ssl.SSLContext = gevent.ssl.create_default_context(cafile=ca_file or cafile)
    return context


class GrpcUser(BaseUser):
    """Sends requests over gRPC, on one connection per user."""

    def on_start(self) -> None:
        """Connect, then wait before the first request."""
        settings, host = CurrentRun.settings, str(self.host)
        address = settings.grpc_host or grpc_address(host)
        options = [("grpc.use_local_subchannel_pool", 1)]
        if host.startswith("https:"):
            authority = Path(settings.ca_file).read_bytes() if settings.ca_file else None
            self.channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(authority), options)
        else:
            self.channel = grpc.insecure_channel(address, options)
        self.metadata = [("x-api-key", settings.api_key)] if settings.api_key else None
        self.predict = InferenceAPIsServiceStub(self.channel).Predictions
        super().on_start()

    def on_stop(self) -> None:
        """Disconnect."""
        self.channel.close()

    def send(self, request: SampleRequest) -> None:
        """Send the request's body as the input `data`."""
        message = PredictionsRequest(model_name=MODEL_NAME, input={"data": request.body})
        body, kind = b"", "gRPC"
        failure: grpc.RpcError | None = None
        problem: WrongResponse | None = None
        try:
            body = self.predict(message, timeout=CurrentRun.settings.timeout_s, metadata=self.metadata).prediction
        except grpc.RpcError as error:
            failure = error
        latency_ms = self.latency_ms()
        try:
            response = read_grpc_error(failure) if failure else HttpResponse(HTTPStatus.OK, body)
            CurrentRun.checker.check(request, response)
        except WrongResponse as error:
            problem = error
        except RequestRefused as refusal:
            self.retry_after_s, kind = refusal.retry_after_s, kind + REFUSED
        self.environment.events.request.fire(
            request_type=kind,
            name=request.name,
            response_time=latency_ms,
            response_length=len(body),
            exception=problem,
            context={},
        )
