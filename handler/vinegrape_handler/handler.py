"""The TorchServe handler: from a batch of requests to its responses.

It uses the context object that TorchServe passes, but does not import TorchServe.
"""

from __future__ import annotations

import http
import logging
import os
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from vinegrape_handler import answer
from vinegrape_handler.classifier import Classifier, Probabilities
from vinegrape_handler.contract import ERROR_HEADER, NO_ERROR, SELF_CHECK_VARIABLE, START_FAILED, SelfCheckAnswer
from vinegrape_handler.decode import Limits
from vinegrape_handler.errors import ArchiveError, InferenceFailed, RequestError, SettingError, TooLarge
from vinegrape_handler.memory import retain_freed_memory
from vinegrape_handler.metadata import SELF_CHECK_FOLDER, Metadata, SelfCheck
from vinegrape_handler.metrics import Metrics
from vinegrape_handler.networks import load_network
from vinegrape_handler.request import Request, read_request, transport
from vinegrape_handler.self_check import run_self_check
from vinegrape_handler.settings import CPU_CALL_SIZE, MAX_BATCH_SIZE, WorkerSettings
from vinegrape_handler.weights import available_backends, choose_backend

_logger = logging.getLogger(__package__)


class BatchContext(Protocol):
    """The part of `ts.context.Context` that the handler uses."""

    system_properties: dict[str, Any]

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """Return the headers of request `idx`, with names as the client wrote them. A gRPC request has none."""

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        """Set the status of response `idx`. The default is 200."""

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the content type of response `idx`."""

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of response `idx`."""


class Response(NamedTuple):
    """The response to one request.

    Attributes:
        body: becomes JSON.
        error: the error that the request as a whole got, if any. It determines the status.
    """

    body: dict[str, Any]
    error: RequestError | None = None


class Handler:
    """Serves one model in one worker process.

    A subclass may override `initialize`, `handle` and `classify`. After `initialize`, these attributes are set:

    Attributes:
        settings: the worker's settings, from environment variables.
        metadata: the model's description.
        backend: the backend in use.
        metrics: the worker's metrics.
        classifier: classifies the images of requests.
    """

    def initialize(self, context: BatchContext) -> None:
        """Load the model that TorchServe has unpacked, and run its self-check.

        Raises:
            SettingError: a setting is invalid.
            ArchiveError: the archive cannot be used.
        """
        _configure_logging()
        retain_freed_memory("worker")
        try:
            self._load(Path(context.system_properties["model_dir"]), context.system_properties.get("gpu_id"))
        except Exception as error:
            _logger.error("%s%s", START_FAILED, " ".join(str(error).split()) or repr(error))
            raise

    def handle(self, data: list[Mapping[str, Any]], context: BatchContext) -> list[bytes]:
        """Process a batch.

        Args:
            data: the inputs of N requests.
            context: provides the headers, and receives the status and content type of each response.

        Returns:
            N response bodies in JSON, in the order of the requests.
        """
        with self.metrics.time_batch():
            start = time.perf_counter()
            headers = [context.get_all_request_header(index) for index in range(len(data))]
            requests = [self._read(row, row_headers) for row, row_headers in zip(data, headers, strict=True)]
            results = self._classify_requests(requests)
            responses = [self._respond(*pair) for pair in zip(requests, results, strict=True)]
            bodies = [_write(response, context, index) for index, response in enumerate(responses)]
            seconds = time.perf_counter() - start
            for request, row_headers, response in zip(requests, headers, responses, strict=True):
                if not (isinstance(request, Request) and request.kind == "self_check"):
                    self.metrics.count_request(transport(row_headers), response.error, seconds)
        return bodies

    def classify(self, images: Sequence[bytes | RequestError]) -> list[Probabilities | RequestError]:
        """Classify all images of a batch; see `Classifier.classify`.

        Every image of a request passes through this method, once per batch. Images of the self-check do not. A subclass
        may override it, for example to measure time.
        """
        return self.classifier.classify(images)

    def _load(self, folder: Path, gpu: int | None) -> None:
        """Set the attributes from an unpacked archive and, if TorchServe assigned one, the number of a GPU."""
        self.settings = WorkerSettings.from_environment()
        self._self_check_token = os.environ.get(SELF_CHECK_VARIABLE, "")
        self.metadata = Metadata.read(folder)
        device = _choose_device(self.settings, gpu)
        on_gpu = device != "cpu"
        self.backend = choose_backend(self.settings.backend, available_backends(folder), on_gpu)
        network = load_network(folder, self.backend, self.settings, device)
        limits = Limits.of(self.settings)
        # The self-check has its own classifier without metrics, because it is not counted.
        self._self_check_classifier = Classifier(self.metadata, network, limits)
        self._self_check_folder = folder / SELF_CHECK_FOLDER
        self._self_check(self.metadata.self_check)
        self.metrics = Metrics(self.metadata.classes)
        decode_threads = self.settings.decode_threads or (8 if on_gpu else 1)
        call_size = MAX_BATCH_SIZE if on_gpu else CPU_CALL_SIZE
        self.classifier = Classifier(self.metadata, network, limits, decode_threads, self.metrics, call_size)
        self.metrics.workers_ready.set(1)

    def _self_check(self, checks: Sequence[SelfCheck]) -> None:
        run_self_check(self._self_check_classifier, self._self_check_folder, self.backend, checks)

    def _read(self, row: Mapping[str, Any], headers: Mapping[str, Any]) -> Request | RequestError:
        try:
            request = read_request(row, headers, self.settings.max_instances, self._self_check_token)
            if request.kind == "instances":
                self._check_total_pixels(request)
        except RequestError as error:
            return error
        return request

    def _check_total_pixels(self, request: Request) -> None:
        """Reject instances that would take too long to decode.

        TorchServe would otherwise replace the worker, and all requests of the batch would fail.
        """
        total = sum(self.classifier.pixels(image) for image in request.images if isinstance(image, bytes))
        if total > self.settings.max_image_pixels:
            raise TooLarge(
                f"The instances have {total} pixels to decode together; at most {self.settings.max_image_pixels} are "
                "accepted. Send fewer images per request."
            )

    def _classify_requests(
        self, requests: Sequence[Request | RequestError]
    ) -> list[list[Probabilities | RequestError]]:
        """Classify the images of all requests at once. Return one list of results per request."""
        images = [request.images if isinstance(request, Request) else () for request in requests]
        results = iter(self.classify([image for of_request in images for image in of_request]))
        return [list(islice(results, len(of_request))) for of_request in images]

    def _respond(self, request: Request | RequestError, results: list[Probabilities | RequestError]) -> Response:
        """Build the response to one request from the results of its images."""
        if isinstance(request, RequestError):
            return Response(answer.error_body(request), request)
        match request.kind:
            case "image":
                (result,) = results
                return Response(self._body(result), result if isinstance(result, RequestError) else None)
            case "instances":
                return Response({"predictions": [self._body(result) for result in results]})
            case "describe":
                return Response(answer.description(self.metadata, self.settings, self.backend))
            case "self_check":
                return self._respond_to_self_check()

    def _body(self, result: Probabilities | RequestError) -> dict[str, Any]:
        """Build the body for one image, and count the image."""
        if isinstance(result, RequestError):
            self.metrics.count_failed_image(result)
            return answer.error_body(result)
        prediction = answer.prediction(result, self.metadata)
        self.metrics.count_prediction(prediction["label"], prediction["probability"])
        return prediction

    def _respond_to_self_check(self) -> Response:
        """Run the self-check with its first image, and build the response."""
        try:
            self._self_check(self.metadata.self_check[:1])
        except ArchiveError as error:
            failed = InferenceFailed(str(error))
            return Response(answer.error_body(failed), failed)
        return Response(SelfCheckAnswer(os.getpid(), self.metadata.version).to_body(self.metadata.name))


def _choose_device(settings: WorkerSettings, gpu: int | None) -> str:
    """Return "cpu" or "cuda:N", from the settings and the number of the GPU that TorchServe assigned, if any.

    Raises:
        SettingError: device is cuda, and there is no GPU.
    """
    if gpu is None and settings.device == "cuda":
        raise SettingError(
            "device is cuda, but TorchServe gave this worker no GPU. Set device to cpu, or set number_of_gpu in "
            "TorchServe's configuration."
        )
    return "cpu" if gpu is None or settings.device == "cpu" else f"cuda:{gpu}"


def _write(response: Response, context: BatchContext, index: int) -> bytes:
    """Set the status and headers of response `index`, and encode its body."""
    context.set_response_content_type(index, answer.CONTENT_TYPE)
    context.set_response_header(index, ERROR_HEADER, response.error.type if response.error else NO_ERROR)
    if response.error:
        status = response.error.status
        context.set_response_status(status, http.HTTPStatus(status).phrase, index)
    return answer.encode(response.body)


def _configure_logging() -> None:
    """Log warnings and errors to standard error, each once.

    TorchServe logs a worker's standard error as warnings. TorchServe's own worker logs several lines per request at
    level INFO to standard output, which the frontend would parse and drop.
    """
    logging.getLogger().setLevel(logging.WARNING)
    if not _logger.handlers:
        _logger.addHandler(logging.StreamHandler())
        _logger.propagate = False
