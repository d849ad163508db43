"""A batch of TorchServe's requests to its answers. Knows TorchServe's context, imports nothing of it."""

from __future__ import annotations

import http
import logging
import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from vinegrape_handler import answer, request
from vinegrape_handler.classifier import Classifier, Probabilities
from vinegrape_handler.contract import SELF_CHECK_VARIABLE, START_FAILED, SelfCheckAnswer
from vinegrape_handler.decode import Limits
from vinegrape_handler.errors import ArchiveError, InferenceFailed, RequestError, SettingError, TooLarge
from vinegrape_handler.memory import retain_freed_memory
from vinegrape_handler.metadata import SELF_CHECK_FOLDER, Metadata
from vinegrape_handler.metrics import Metrics
from vinegrape_handler.networks import load_network
from vinegrape_handler.request import Request
from vinegrape_handler.self_check import check_answers
from vinegrape_handler.settings import CPU_CALL_SIZE, MAX_BATCH_SIZE, WorkerSettings
from vinegrape_handler.weights import available_backends, choose_backend

_logger = logging.getLogger(__package__)


class Context(Protocol):
    """The part of `ts.context.Context` that is used."""

    system_properties: dict[str, Any]

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """The headers of request `idx`, in the case in which they came; none over gRPC."""

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        """Give the answer of request `idx` another status than 200."""

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Give the answer of request `idx` its content type."""


class Handler:
    """Serves one model in one worker."""

    def initialize(self, context: Context) -> None:
        """Load the model that TorchServe unpacked, and check that it answers its own pictures as when exported.

        Raises:
            VinegrapeError: wrong settings, or an archive that cannot be served; the worker does not start.
        """
        _set_up_logging()
        retain_freed_memory("worker")
        try:
            self._load(Path(context.system_properties["model_dir"]), context.system_properties.get("gpu_id"))
        except Exception as error:
            _logger.error("%s%s", START_FAILED, " ".join(str(error).split()) or repr(error))
            raise

    def handle(self, data: list[Mapping[str, Any]], context: Context) -> list[bytes]:
        """Answer a batch.

        Args:
            data: N requests' input maps.
            context: takes each answer's status and content type.

        Returns:
            N JSON answers.
        """
        with self.metrics.batches_in_progress.track_inprogress():
            start = time.perf_counter()
            headers = [context.get_all_request_header(index) for index in range(len(data))]
            requests = [self._read(row, each) for row, each in zip(data, headers, strict=True)]
            results = self._classify([request for request in requests if isinstance(request, Request)])
            responses = [self._respond(item, results) for item in requests]
            answers = [_write(body, status, context, index) for index, (body, status) in enumerate(responses)]
            seconds = time.perf_counter() - start
            for item, each, (body, status) in zip(requests, headers, responses, strict=True):
                if not (isinstance(item, Request) and item.self_check):
                    self.metrics.count_request(request.transport(each), status, body, seconds)
        return answers

    def _load(self, folder: Path, gpu: int | None) -> None:
        self.settings = WorkerSettings.from_environment()
        self._self_check_token = os.environ.get(SELF_CHECK_VARIABLE, "")
        self.metadata = Metadata.read(folder)
        if gpu is None and self.settings.device == "cuda":
            raise SettingError(
                "device is cuda, but TorchServe gave this worker no GPU. Set device to cpu, or number_of_gpu in its "
                "configuration."
            )
        device = "cpu" if gpu is None or self.settings.device == "cpu" else f"cuda:{gpu}"
        on_gpu = device != "cpu"
        self.backend = choose_backend(self.settings.backend, available_backends(folder), on_gpu)
        network = load_network(folder, self.backend, self.settings, device)
        limits = Limits.of(self.settings)
        # A classifier of its own: what it asks is nobody's request, and is not counted
        self._check = partial(
            check_answers, Classifier(self.metadata, network, limits), folder / SELF_CHECK_FOLDER, self.backend
        )
        self._check(self.metadata.self_check)
        self.metrics = Metrics(self.metadata.classes)
        decode_threads = self.settings.decode_threads or (8 if on_gpu else 1)
        call_size = MAX_BATCH_SIZE if on_gpu else CPU_CALL_SIZE
        self.classifier = Classifier(self.metadata, network, limits, decode_threads, self.metrics, call_size)
        self.metrics.workers_ready.set(1)

    def _read(self, row: Mapping[str, Any], headers: Mapping[str, Any]) -> Request | RequestError:
        try:
            read = request.read(row, headers, self.settings.max_instances, self._self_check_token)
            if read.instances:
                self._check_total(read)
            return read
        except RequestError as error:
            return error

    def _check_total(self, read: Request) -> None:
        """Refuse what would keep a worker so long that TorchServe replaced it, and its neighbours' requests with it."""
        total = sum(self.classifier.pixels(image) for image in read.images if isinstance(image, bytes))
        if total > self.settings.max_image_pixels:
            raise TooLarge(
                f"The instances have {total} pixels to decode together; at most {self.settings.max_image_pixels} are "
                "accepted. Send fewer at a time."
            )

    def _classify(self, requests: list[Request]) -> Iterator[Probabilities | RequestError]:
        """The results of all images of all requests, in order, from one pass through the classifier."""
        items = [item for request in requests for item in request.images]
        results = iter(self.classifier.classify([item for item in items if isinstance(item, bytes)]))
        for item in items:
            yield next(results) if isinstance(item, bytes) else item

    def _respond(
        self, item: Request | RequestError, results: Iterator[Probabilities | RequestError]
    ) -> tuple[dict[str, Any], int]:
        """The body and the status of one request, whose images' results come next."""
        if isinstance(item, RequestError):
            return answer.error_body(item), item.status
        if item.self_check:
            return self._check_again()
        if item.describe:
            return answer.description(self.metadata, self.settings, self.backend), http.HTTPStatus.OK
        if item.instances:
            predictions = [self._body(next(results)) for _ in item.images]
            return {"predictions": predictions}, http.HTTPStatus.OK
        result = next(results)
        return self._body(result), result.status if isinstance(result, RequestError) else http.HTTPStatus.OK

    def _body(self, result: Probabilities | RequestError) -> dict[str, Any]:
        if isinstance(result, RequestError):
            body = answer.error_body(result)
        else:
            body = answer.prediction(result, self.metadata)
        self.metrics.count_image(body)
        return body

    def _check_again(self) -> tuple[dict[str, Any], int]:
        try:
            self._check(self.metadata.self_check[:1])
        except ArchiveError as error:
            failed = InferenceFailed(str(error))
            return answer.error_body(failed), failed.status
        return SelfCheckAnswer(os.getpid(), self.metadata.version).to_body(self.metadata.name), http.HTTPStatus.OK


def _write(body: dict[str, Any], status: int, context: Context, index: int) -> bytes:
    """One answer's bytes; its status and content type go to the context."""
    context.set_response_content_type(index, answer.CONTENT_TYPE)
    if status != http.HTTPStatus.OK:
        context.set_response_status(status, http.HTTPStatus(status).phrase, index)
    return answer.encode(body)


def _set_up_logging() -> None:
    """Speak where TorchServe listens, and keep its worker quiet.

    TorchServe takes a worker's standard error for warnings. Its own worker writes several lines a request to standard
    output, for the frontend to parse and drop.
    """
    logging.getLogger().setLevel(logging.WARNING)
    if not _logger.handlers:
        _logger.addHandler(logging.StreamHandler())
        _logger.propagate = False
