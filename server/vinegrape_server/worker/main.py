"""A worker process: loads the model that TorchServe's frontend names, and responds to its batches.

It replaces TorchServe's own worker, `ts/model_service_worker.py`, which needs torch and takes 205 us instead of 42 us
per request (docs/notes/performance-log.md). It must not import `vinegrape_handler`: each archive has its own copy.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vinegrape_server.worker.protocol import LoadRequest, Reader, WireRequest, WireResponse, encode

_CONNECT_TIMEOUT_S = 30


class BatchContext:
    """The context of one batch, for the handler: the part of `ts.context.Context` that our handler uses.

    Attributes:
        system_properties: `model_dir` and `gpu_id`.
        statuses: status code and phrase of each response.
        content_types: content type of each response.
    """

    def __init__(self, system_properties: dict[str, Any], batch: Sequence[WireRequest] = ()) -> None:
        self.system_properties = system_properties
        self.statuses = [(200, "")] * len(batch)
        self.content_types = [""] * len(batch)
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
        module = importlib.import_module(Path(model.handler).stem)
        (handler_class,) = (
            value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__
        )
        self._system_properties = {"model_dir": model.folder, "gpu_id": model.gpu}
        self._handler = handler_class()
        self._handler.initialize(BatchContext(self._system_properties))

    def respond(self, batch: Sequence[WireRequest]) -> bytes:
        """Return the encoded responses of a batch. If the handler raises an exception, every response is an error."""
        context = BatchContext(self._system_properties, batch)
        try:
            bodies = self._handler.handle([request.inputs for request in batch], context)
            rows = zip(batch, bodies, context.statuses, context.content_types, strict=True)
            responses = [
                WireResponse(request.id, body, *status, content_type) for request, body, status, content_type in rows
            ]
            return encode(200, "Prediction success", responses)
        except Exception as error:
            traceback.print_exc()
            code, message = (507, "Out of resources") if isinstance(error, MemoryError) else (503, "Prediction failed")
            return encode(code, message, [WireResponse(request.id, b"error", code) for request in batch])


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
    connection.sendall(encode(200, "Model loaded"))
    while True:
        connection.sendall(service.respond(reader.batch()))


def main() -> None:
    """Listen on the socket that the command line names, and serve the first connection."""
    parser = argparse.ArgumentParser(description="A worker process, started by TorchServe for one model")
    parser.add_argument("--sock-type", choices=["unix"], required=True)
    parser.add_argument("--sock-name", type=Path, required=True)
    parser.add_argument("--metrics-config", help="an option of TorchServe's own workers; ignored")
    path = parser.parse_args().sock_name
    # TorchServe discards a worker's standard output: libraries also log about the invalid images of clients
    logging.basicConfig(stream=sys.stdout)
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
