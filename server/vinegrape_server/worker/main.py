"""One worker: loads the model that TorchServe's frontend names, and answers the batches that it sends.

TorchServe's own, `ts/model_service_worker.py`, needs torch, and takes several times as long over each request. This one
is run in its place, as a script: it must not import what an archive brings too, `vinegrape_handler`.
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

from vinegrape_server.worker.protocol import Answer, Model, Reader, Request, encode

_CONNECT_S = 30  # until the frontend that started this worker is given up


class Context:
    """What the handler is told about a batch and may say of it: of `ts.context.Context`, the part that ours uses.

    Attributes:
        system_properties: `model_dir` and `gpu_id`.
        statuses: of the answers, each a code and a phrase.
        content_types: of the answers.
    """

    def __init__(self, system_properties: dict[str, Any], batch: Sequence[Request] = ()) -> None:
        self.system_properties = system_properties
        self.statuses = [(200, "")] * len(batch)
        self.content_types = [""] * len(batch)
        self._batch = batch

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """The headers of request `idx`, and those of its inputs."""
        return self._batch[idx].headers

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        """Give the answer of request `idx` another status than 200."""
        self.statuses[idx] = code, phrase

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Give the answer of request `idx` its content type."""
        self.content_types[idx] = value


class Service:
    """The handler of a model, and what it is told.

    Raises:
        Exception: whatever stands in the way of loading it.
    """

    def __init__(self, model: Model) -> None:
        # The archive's code goes before what is installed here, and before the PYTHONPATH that was inherited
        sys.path.insert(0, model.folder)
        module = importlib.import_module(Path(model.handler).stem)
        (entry,) = (
            each for each in vars(module).values() if isinstance(each, type) and each.__module__ == module.__name__
        )
        self._system_properties = {"model_dir": model.folder, "gpu_id": model.gpu}
        self._handler = entry()
        self._handler.initialize(Context(self._system_properties))

    def answer(self, batch: Sequence[Request]) -> bytes:
        """The answers of a batch, encoded; where the handler fails, all are that."""
        context = Context(self._system_properties, batch)
        try:
            bodies = self._handler.handle([request.inputs for request in batch], context)
            rows = zip(batch, bodies, context.statuses, context.content_types, strict=True)
            answers = [Answer(request.id, body, *status, content_type) for request, body, status, content_type in rows]
            return encode(200, "Prediction success", answers)
        except Exception as error:
            traceback.print_exc()
            code, message = (507, "Out of resources") if isinstance(error, MemoryError) else (503, "Prediction failed")
            return encode(code, message, [Answer(request.id, b"error", code) for request in batch])


def serve(connection: socket.socket) -> None:
    """Load a model and answer batches.

    Raises:
        ConnectionError: the frontend has disconnected, which is how it ends a worker.
        SystemExit: the model cannot be loaded; the frontend knows why.
    """
    reader = Reader(connection)
    model = reader.model()
    try:
        service = Service(model)
    except Exception as error:
        code = 507 if isinstance(error, MemoryError) else 500
        connection.sendall(encode(code, f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from error
    connection.sendall(encode(200, "Model loaded"))
    while True:
        connection.sendall(service.answer(reader.batch()))


def main() -> None:
    """Listen where TorchServe says, tell it so, and serve the one connection that it opens."""
    parser = argparse.ArgumentParser(description="Started by TorchServe, for one model")
    parser.add_argument("--sock-type", choices=["unix"], required=True)
    parser.add_argument("--sock-name", type=Path, required=True)
    parser.add_argument("--metrics-config", help="of TorchServe's own workers; not read")
    path = parser.parse_args().sock_name
    # Where TorchServe drops it: a client's picture may be all that a library complains of
    logging.basicConfig(stream=sys.stdout)
    with socket.socket(socket.AF_UNIX) as listener:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(_CONNECT_S)
        # The frontend waits for these words
        sys.stdout.write(f"[PID]{os.getpid()}\nTorch worker started.\n")
        sys.stdout.flush()
        connection, _ = listener.accept()
        path.unlink()
    with connection, contextlib.suppress(ConnectionError):
        serve(connection)


if __name__ == "__main__":
    main()
