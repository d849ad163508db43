"""The standard services of a gRPC server: health and reflection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from vinegrape_handler.errors import BadRequest, RequestError
from vinegrape_server.gateway.calls import Calls
from vinegrape_server.gateway.outcome import of_error
from vinegrape_server.gateway.readiness import Readiness

HEALTH_SERVICE, REFLECTION_SERVICE = health.SERVICE_NAME, reflection.SERVICE_NAME
_WATCH_S = 1
_REFLECTION_S = 10


class HealthService:
    """The service `grpc.health.v1.Health`.

    grpcio-health-checking has one too. There, a client that does not read its `Watch` holds the lock of all others, and
    also stops the stop of the server.

    Args:
        services: the names whose health is known, beside the empty name of the whole server.
        readiness: whether the server is ready.
        checks: bounds the calls of `Check`.
        watches: bounds the calls of `Watch`.
    """

    def __init__(self, services: Sequence[str], readiness: Readiness, checks: Calls, watches: Calls) -> None:
        self._services = {"", *services}
        self._readiness = readiness
        self._checks, self._watches = checks, watches

    def handlers(self) -> Mapping[str, Any]:
        """Return the handler of each method by its name."""
        return {
            "Check": grpc.stream_unary_rpc_method_handler(self._check),
            "Watch": grpc.stream_stream_rpc_method_handler(self._watch),
        }

    async def _check(self, _messages: object, context: Any) -> bytes:
        service = await _read_service(self._checks, context)
        if service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "The service is not known.")
        return await self._status(service)

    async def _watch(self, _messages: object, context: Any) -> None:
        """Send the status, and then each change of it, until the server stops."""
        service = await _read_service(self._watches, context)
        sent = b"?"
        while not self._readiness.stopping.is_set():
            if (status := await self._status(service)) != sent:
                await context.write(status)
                sent = status
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._readiness.stopping.wait(), _WATCH_S)
        await context.write(await self._status(service))

    async def _status(self, service: str) -> bytes:
        status = health_pb2.HealthCheckResponse
        if service not in self._services:
            value = status.SERVICE_UNKNOWN
        else:
            value = status.SERVING if await self._readiness.is_ready() else status.NOT_SERVING
        return bytes(status(status=value).SerializeToString())


class ReflectionService:
    """The service `grpc.reflection.v1alpha.ServerReflection`, with a time limit for each call.

    Args:
        services: the names of all services.
        calls: bounds the calls.
    """

    def __init__(self, services: Sequence[str], calls: Calls) -> None:
        self._service = reflection.aio.ReflectionServicer(services)
        self._calls = calls

    def handlers(self) -> Mapping[str, Any]:
        """Return the handler of the method by its name."""
        return {
            "ServerReflectionInfo": grpc.stream_stream_rpc_method_handler(
                self._reflect, request_deserializer=reflection_pb2.ServerReflectionRequest.FromString
            )
        }

    async def _reflect(self, messages: Any, context: Any) -> None:
        await _admit(self._calls, context)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REFLECTION_S):
                async for response in self._service.ServerReflectionInfo(messages, context):
                    await context.write(response.SerializeToString())
                return
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"A call may take {_REFLECTION_S} s.")


async def _admit(calls: Calls, context: Any) -> None:
    try:
        await calls.admit(context)
    except RequestError as error:
        outcome = of_error(error)
        await context.abort(outcome.code, outcome.body.decode(), outcome.trailers)


async def _read_service(calls: Calls, context: Any) -> str:
    """Return the service's name that a health request carries, or end the call."""
    try:
        await calls.admit(context)
        return str(health_pb2.HealthCheckRequest.FromString(await calls.read(context)).service)
    except DecodeError:
        outcome = of_error(BadRequest("The message is not a HealthCheckRequest."))
    except RequestError as error:
        outcome = of_error(error)
    await context.abort(outcome.code, outcome.body.decode(), outcome.trailers)
    raise AssertionError("abort raises")
