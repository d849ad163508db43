"""The TorchServe handler: from a batch of requests to its responses.

It uses the context object that TorchServe passes, but does not import TorchServe.
"""

from __future__ import annotations

import dataclasses
import http
import logging
import os
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vinegrape_handler import answer
from vinegrape_handler.classifier import Classifier, InputImage, Scores, TimedImage
from vinegrape_handler.contract import (
    ERROR_HEADER,
    NO_ERROR,
    SELF_CHECK_VARIABLE,
    START_FAILED,
    TIMING_HEADER,
    VERSION_HEADER,
    SelfCheckAnswer,
)
from vinegrape_handler.deadline import check_deadline, read_deadline
from vinegrape_handler.errors import (
    NEEDS_MEMORY,
    ArchiveError,
    InferenceFailed,
    RequestError,
    SettingError,
    TooLarge,
)
from vinegrape_handler.images.decode import Limits
from vinegrape_handler.images.quiet import quiet_warnings
from vinegrape_handler.memory import data_bytes, limit_memory, retain_freed_memory
from vinegrape_handler.metadata import SELF_CHECK_FOLDER, Metadata, SelfCheck
from vinegrape_handler.metrics import Metrics
from vinegrape_handler.networks import load_network
from vinegrape_handler.protocols.route import Classified, Model, Pending, Response, Result, error_response
from vinegrape_handler.protocols.router import Router
from vinegrape_handler.request import requests_self_check, transport
from vinegrape_handler.self_check import run_self_check
from vinegrape_handler.settings import CPU_CALL_SIZE, MAX_BATCH_SIZE, WorkerSettings
from vinegrape_handler.weights import available_backends, choose_backend

# The images of a batch are not decoded after this time. A worker that does not respond for response_timeout_s, 15 s by
# default, is replaced, and all requests of its batch are lost. The last image takes up to 2 s more.
MAX_BATCH_DECODE_SECONDS = 10.0

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


class Handler:
    """Serves one model in one worker process.

    A subclass may override `initialize`, `handle` and `classify`. After `initialize`, these attributes are set:

    Attributes:
        settings: the worker's settings, from environment variables.
        metadata: the model's description, with the threshold of the settings, if they have one.
        backend: the backend in use.
        metrics: the worker's metrics.
        classifier: classifies the images of requests.
    """

    def initialize(self, context: BatchContext) -> None:
        """Load the model that TorchServe has unpacked, run its self-check, and limit the memory of this process.

        Raises:
            SettingError: a setting is invalid.
            ArchiveError: the archive cannot be used.
        """
        _configure_logging()
        quiet_warnings()
        retain_freed_memory("worker")
        try:
            properties = context.system_properties
            self._load(Path(properties["model_dir"]), properties.get("gpu_id"))
            # torch and CUDA reserve far more memory than they use
            if self.settings.worker_memory_mb or not (self._on_gpu or self.backend == "torchscript"):
                limit_memory(self.settings, properties.get("batch_size") or 1, self._network_bytes)
            self.metrics.workers_ready.set(1)
        except Exception as error:
            _logger.error("%s%s", START_FAILED, " ".join(str(error).split()) or repr(error))
            raise

    def handle(self, data: list[Mapping[str, Any]], context: BatchContext) -> list[bytes]:
        """Process a batch.

        Args:
            data: the inputs of N requests.
            context: provides the headers, and receives the status and content type of each response.

        Returns:
            N response bodies, in the order of the requests.
        """
        with self.metrics.time_batch():
            start = time.perf_counter()
            headers = [context.get_all_request_header(index) for index in range(len(data))]
            responses = self._process(data, headers)
            bodies = [
                _write(response, context, index, self.metadata.version) for index, response in enumerate(responses)
            ]
            seconds = time.perf_counter() - start
            for row_headers, response in zip(headers, responses, strict=True):
                if response.is_counted:
                    self.metrics.count_request(transport(row_headers), response.error, seconds)
        return bodies

    def classify(self, images: Sequence[InputImage]) -> list[Scores | RequestError]:
        """Classify all images of a batch; see `Classifier.classify`.

        Every image of a request passes through this method, once per batch. Images of the self-check do not. A subclass
        may override it, for example to measure time.
        """
        return self.classifier.classify(images)

    def _load(self, folder: Path, gpu: int | None) -> None:
        """Set the attributes from an unpacked archive and, if TorchServe assigned one, the number of a GPU."""
        self.settings = WorkerSettings.from_environment()
        self._self_check_token = os.environ.get(SELF_CHECK_VARIABLE, "")
        metadata = Metadata.read(folder)
        threshold = self.settings.choose_threshold(metadata.ood_threshold)
        self.metadata = dataclasses.replace(metadata, ood_threshold=threshold)
        device = _choose_device(self.settings, gpu)
        self._on_gpu = on_gpu = device != "cpu"
        self.backend = choose_backend(self.settings.backend, available_backends(folder), on_gpu)
        network = load_network(folder, self.backend, self.settings, device)
        limits = Limits.of(self.settings)
        # The self-check has its own classifier without metrics, because it is not counted.
        self._self_check_classifier = Classifier(self.metadata, network, limits)
        self._self_check_folder = folder / SELF_CHECK_FOLDER
        before = data_bytes()
        self._self_check(self.metadata.self_check)
        # The self-check has run the network on one image at a time. The factor 1.5 is a reserve
        self._network_bytes = int(1.5 * CPU_CALL_SIZE * max(0, data_bytes() - before))
        abstains = self.metadata.ood_threshold is not None
        self.metrics = Metrics(
            self.metadata.classes,
            abstains=abstains,
            reference=self.metadata.reference,
            version=self.metadata.version,
        )
        decode_threads = self.settings.decode_threads or (8 if on_gpu else 1)
        call_size = MAX_BATCH_SIZE if on_gpu else CPU_CALL_SIZE
        side = self.metadata.input_size
        # One call tells: a TorchScript file does not list its outputs
        explains = network(np.zeros((1, side, side, 3), np.uint8)).activation_maps is not None
        self._router = Router(Model(self.metadata, self.settings, self.backend, explains))
        self.classifier = Classifier(self.metadata, network, limits, decode_threads, self.metrics, call_size)

    def _self_check(self, checks: Sequence[SelfCheck]) -> None:
        run_self_check(self._self_check_classifier, self._self_check_folder, self.backend, checks)

    def _process(self, rows: Sequence[Mapping[str, Any]], headers: Sequence[Mapping[str, Any]]) -> list[Response]:
        """Return the responses to the requests of a batch. If the handler itself fails, its response is an error."""
        try:
            requests = [self._read(*pair) for pair in zip(rows, headers, strict=True)]
            results = self._classify_requests(requests, [read_deadline(row_headers) for row_headers in headers])
            return [
                self._add_timing(request.respond([self._count(result) for result in of_request]), len(of_request))
                for request, of_request in zip(requests, results, strict=True)
            ]
        except Exception as error:
            if len(rows) > 1:  # the other requests of the batch must not fail with the one that is the reason
                return [self._process([row], [row_headers])[0] for row, row_headers in zip(rows, headers, strict=True)]
            if isinstance(error, MemoryError):
                return [self._router.choose(headers[0]).respond_to_error(TooLarge(NEEDS_MEMORY))]
            _logger.exception("The handler failed on a request.")
            failed = InferenceFailed("The server failed on this request. Try again.")
            return [self._router.choose(headers[0]).respond_to_error(failed)]

    def _read(self, row: Mapping[str, Any], headers: Mapping[str, Any]) -> Pending:
        """Read a request. One that is invalid has no images, and its response is the error."""
        if requests_self_check(headers, self._self_check_token):  # whatever its body is
            return Pending((), lambda _: self._respond_to_self_check())
        route = self._router.choose(headers)
        error: RequestError
        try:
            check_deadline(read_deadline(headers))
            request = route.read(self._router.call(row, headers))
            if request.is_list:
                self._check_total_work(request.images, read_deadline(headers))
            return request
        except RequestError as invalid:
            error = invalid
        except MemoryError:
            error = TooLarge(NEEDS_MEMORY)
        return Pending((), lambda _: route.respond_to_error(error))

    def _check_total_work(self, images: Sequence[InputImage], deadline: float) -> None:
        """Reject images that would take too long to decode: together they may cost what one image may cost.

        TorchServe would otherwise replace the worker, and all requests of the batch would fail.
        """
        total = 0
        for image in images:
            check_deadline(deadline)
            if isinstance(image, bytes):
                total += self.classifier.work(image)
            if total > self.settings.max_image_pixels:
                raise TooLarge(
                    f"The images take longer to decode than {self.settings.max_image_pixels} pixels, which is the "
                    "maximum for a request. Send fewer images per request."
                )

    def _classify_requests(
        self, requests: Sequence[Pending], deadlines: Sequence[float]
    ) -> list[list[Scores | RequestError]]:
        """Classify the images of all requests at once. Return one list of results per request."""
        latest = time.time() + MAX_BATCH_DECODE_SECONDS
        images = [
            [TimedImage(image, min(due, latest)) if isinstance(image, bytes) else image for image in request.images]
            for request, due in zip(requests, deadlines, strict=True)
        ]
        results = iter(self.classify([image for of_request in images for image in of_request]))
        return [list(islice(results, len(of_request))) for of_request in images]

    def _count(self, result: Scores | RequestError) -> Result:
        """Return an image's prediction or error, and count the image."""
        if isinstance(result, RequestError):
            self.metrics.count_failed_image(result)
            return result
        prediction = answer.prediction(result, self.metadata, self.settings.abstain)
        known = prediction.get("known", True)
        self.metrics.count_prediction(prediction["label"] if known else None, prediction["probability"])
        return Classified(prediction, result)

    def _add_timing(self, response: Response, images: int) -> Response:
        """Add where the time of the batch went to a response, if its request had images."""
        if not images:
            return response
        timing = self.classifier.timing
        value = f"decode;dur={1000 * timing.decode:.1f}, inference;dur={1000 * timing.inference:.1f}"
        return response._replace(headers={**response.headers, TIMING_HEADER: value})

    def _respond_to_self_check(self) -> Response:
        """Run the self-check with its first image, and build the response."""
        try:
            self._self_check(self.metadata.self_check[:1])
        except ArchiveError as error:
            return error_response(InferenceFailed(str(error)))._replace(is_counted=False)
        body = SelfCheckAnswer(os.getpid(), self.metadata.version).to_body(self.metadata.name)
        return Response(body, is_counted=False)


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


def _write(response: Response, context: BatchContext, index: int, version: str) -> bytes:
    """Set the status and headers of response `index`, and encode its body."""
    context.set_response_content_type(index, response.content_type)
    for name, value in response.headers.items():
        context.set_response_header(index, name, value)
    context.set_response_header(index, VERSION_HEADER, version)
    context.set_response_header(index, ERROR_HEADER, response.error.type if response.error else NO_ERROR)
    if response.error:
        status = response.error.status
        context.set_response_status(status, http.HTTPStatus(status).phrase, index)
    return response.body if isinstance(response.body, bytes) else answer.encode(response.body)


def _configure_logging() -> None:
    """Log warnings and errors to standard error, each once.

    TorchServe logs a worker's standard error as warnings. TorchServe's own worker logs several lines per request at
    level INFO to standard output, which the frontend would parse and drop.
    """
    logging.getLogger().setLevel(logging.WARNING)
    if not _logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_OneLine())
        _logger.addHandler(handler)
        _logger.propagate = False


class _OneLine(logging.Formatter):
    """Writes a record and its traceback in one line, so that a request cannot fill the log."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, see `logging.Formatter.format`."""
        return " | ".join(line.strip() for line in super().format(record).splitlines())
