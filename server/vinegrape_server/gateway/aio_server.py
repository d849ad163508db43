"""A gRPC server that survives every path that a client can send."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from grpc import aio
from grpc._cython import cygrpc

_REFUSAL_TIMEOUT_S = 5


def make_server(services: Mapping[str, Mapping[str, Any]], options: Sequence[tuple[str, int]]) -> Any:
    """Return grpcio's asyncio server, without the fault that a call whose path is not UTF-8 ends it (grpcio 1.85).

    grpcio decodes the path of a call in the loop that serves all clients, unless the call's method is registered. Here
    every method is registered, and a call of any other method is refused before its path is read.

    Args:
        services: the handlers of all methods by the names of the service and of the method.
        options: gRPC's options.
    """
    server = aio.server()
    server._server = _Core(asyncio.get_running_loop(), None, (), None, tuple(options), None)
    for name, methods in services.items():
        server.add_registered_method_handlers(name, methods)
    return server


class _Core(cygrpc.AioServer):  # type: ignore[misc]
    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self._refusals: set[asyncio.Task[None]] = set()

    async def _request_call(self) -> None:
        """Refuse every call of a method that is not registered. grpcio itself waits here for the next such call."""
        while True:
            call = await super()._request_call()
            refusal = asyncio.create_task(_refuse(call))
            self._refusals.add(refusal)
            refusal.add_done_callback(self._refusals.discard)


async def _refuse(call: Any) -> None:
    context = cygrpc._ServicerContext(call, None, None, asyncio.get_running_loop())
    with contextlib.suppress(aio.AbortError, aio.BaseError, TimeoutError):
        async with asyncio.timeout(_REFUSAL_TIMEOUT_S):
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "The method does not exist.")
