"""A worker process: loads the model that TorchServe's frontend names, and responds to its batches.

It replaces TorchServe's own worker, `ts/model_service_worker.py`, which needs torch and takes 205 us instead of 42 us
per request (docs/notes/performance-log.md). It must not import `vinegrape_handler`: each archive has its own copy.
"""

from __future__ import annotations

import argparse
import contextlib
import http
import importlib
import json
import logging
import os
import socket
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vinegrape_server.worker.protocol import LoadRequest, Reader, WireRequest, WireResponse, encode

_CONNECT_TIMEOUT_S = 30
_START_FAILED = "vinegrape worker cannot start: "  # `vinegrape_handler.contract.START_FAILED`
_ERROR_HEADER = "x-vinegrape-error"  # `vinegrape_handler.contract.ERROR_HEADER`


class BatchContext:
    """The context of one batch, for the handler: the part of `ts.context.Context` that our handler uses.

    Attributes:
        system_properties: `model_dir`, `gpu_id` and `batch_size`.
        statuses: status code and phrase of each response.
        content_types: content type of each response.
        headers: further headers of each response.
    """

    def __init__(self, system_properties: dict[str, Any], batch: Sequence[WireRequest] = ()) -> None:
        self.system_properties = system_properties
        self.statuses = [(200, "")] * len(batch)
        self.content_types = [""] * len(batch)
        self.headers: list[dict[str, str]] = [{} for _ in batch]
        self._batch = batch

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """Return the headers of request `idx`, and those of its inputs."""
        return self._batch[idx].headers

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        """Set the status of the response to request `idx`; the default is 200."""
        self.statuses[idx] = code, phrase

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the content type of the response to request `idx`."""
        self.content_types[idx] = value

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of the response to request `idx`."""
        self.headers[idx][key] = value


class Service:
    """The loaded handler of a model.

    Args:
        model: the model to load.

    Raises:
        Exception: the handler cannot be imported or initialized.
    """

    def __init__(self, model: LoadRequest) -> None:
        # The archive's code takes precedence over installed packages and over an inherited PYTHONPATH
        sys.path.insert(0, model.folder)
        self._system_properties = {"model_dir": model.folder, "gpu_id": model.gpu, "batch_size": model.batch_size}
        self._handler = _import_handler(Path(model.handler).stem)()
        self._handler.initialize(BatchContext(self._system_properties))

    def respond(self, batch: Sequence[WireRequest]) -> list[WireResponse]:
        """Return the responses of a batch. If the handler raises an exception, every response is an error."""
        context = BatchContext(self._system_properties, batch)
        try:
            bodies = self._handler.handle([request.inputs for request in batch], context)
            rows = zip(batch, bodies, context.statuses, context.content_types, context.headers, strict=True)
            return [
                WireResponse(request.id, body, *status, content_type, headers)
                for request, body, status, content_type, headers in rows
            ]
        except Exception as error:
            _log_exception()
            return [_failure(request.id, error) for request in batch]


def _import_handler(name: str) -> Any:
    """Return the only class of a module.

    If that is not possible, the reason is logged for the supervisor. What fails later, the handler logs itself.
    """
    try:
        module = importlib.import_module(name)
        (handler_class,) = (
            value for value in vars(module).values() if isinstance(value, type) and value.__module__ == name
        )
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"{_START_FAILED}its handler cannot be imported: {reason}", file=sys.stderr)  # noqa: T201
        raise
    return handler_class


def _failure(id_: bytes, error: Exception) -> WireResponse:
    """Build the response to a request on which the handler raised an exception, as the handler builds its own errors.

    Without it TorchServe would send its own text.
    """
    if isinstance(error, MemoryError):
        status, type_, message = 413, "too_large", "The request needs more memory than a worker may use."
    else:
        status, type_, message = 503, "inference_failed", "The server failed on this request. Try again."
    body = {"error": {"code": status, "type": type_, "message": message}}
    encoded = json.dumps(body, separators=(",", ":")).encode()
    return WireResponse(
        id_, encoded, status, http.HTTPStatus(status).phrase, "application/json", {_ERROR_HEADER: type_}
    )


def _log_exception() -> None:
    """Log the exception that is being handled in one line, so that a request cannot fill the log."""
    print(" | ".join(line.strip() for line in traceback.format_exc().splitlines()), file=sys.stderr)  # noqa: T201


def serve_connection(connection: socket.socket) -> None:
    """Load the model that the frontend names, then respond to its batches.

    Raises:
        ConnectionError: the frontend has disconnected. This is how it ends a worker.
        SystemExit: the model cannot be loaded. The frontend has received the reason.
    """
    reader = Reader(connection)
    model = reader.load_request()
    try:
        service = Service(model)
    except Exception as error:
        code = 507 if isinstance(error, MemoryError) else 500
        connection.sendall(encode(code, f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from error
    _discard_output_of_libraries()
    connection.sendall(encode(200, "Model loaded"))
    while True:
        connection.sendall(encode(200, "Prediction success", service.respond(reader.batch())))


def _keep_standard_error() -> None:
    """Let `sys.stderr` write to a copy of file descriptor 2, which `_discard_output_of_libraries` does not close."""
    sys.stderr = open(os.dup(2), "w", buffering=1, errors="backslashreplace")  # noqa: PTH123, SIM115


def _discard_output_of_libraries() -> None:
    """Discard what C libraries write to file descriptor 2. libtiff writes up to 130,000 lines about one image."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    os.close(null)


def main() -> None:
    """Listen on the socket that the command line names, and serve the first connection."""
    parser = argparse.ArgumentParser(description="A worker process, started by TorchServe for one model")
    parser.add_argument("--sock-type", choices=["unix"], required=True)
    parser.add_argument("--sock-name", type=Path, required=True)
    parser.add_argument("--metrics-config", help="an option of TorchServe's own workers; ignored")
    path = parser.parse_args().sock_name
    # Libraries log and warn about the invalid images of clients. TorchServe discards a worker's standard output
    logging.basicConfig(stream=sys.stdout)
    warnings.simplefilter("ignore")
    _keep_standard_error()
    with socket.socket(socket.AF_UNIX) as listener:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(_CONNECT_TIMEOUT_S)
        # The frontend waits for these lines
        sys.stdout.write(f"[PID]{os.getpid()}\nTorch worker started.\n")
        sys.stdout.flush()
        connection, _ = listener.accept()
        path.unlink()
    with connection, contextlib.suppress(ConnectionError):
        serve_connection(connection)


if __name__ == "__main__":
    main()
