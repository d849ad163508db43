"""The gRPC server: its options, its services, its stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys

from vinegrape_server.gateway.aio_server import make_server
from vinegrape_server.gateway.calls import Calls, Memory
from vinegrape_server.gateway.forwarding import Forwarding
from vinegrape_server.gateway.health import HEALTH_SERVICE, REFLECTION_SERVICE, HealthService, ReflectionService
from vinegrape_server.gateway.inference import SERVICE, InferenceService
from vinegrape_server.gateway.metrics import Metrics
from vinegrape_server.gateway.open_inference import OPEN_INFERENCE_SERVICE, OpenInferenceService
from vinegrape_server.gateway.options import Options
from vinegrape_server.gateway.readiness import Readiness
from vinegrape_server.gateway.version import Version

LISTENING = "listening"  # the line that this program writes once it accepts connections

_MAX_OTHER_CALLS = 128
_MAX_MESSAGES = 8  # messages of the maximum size that may be in memory


def channel_options(options: Options) -> list[tuple[str, int]]:
    """Return gRPC's options. https://grpc.github.io/grpc/core/group__grpc__arg__keys.html documents them."""
    return [
        ("grpc.so_reuseport", 0),  # otherwise a second server could share the port
        # A message up to this size gets our error; beyond it, gRPC itself refuses it with RESOURCE_EXHAUSTED
        ("grpc.max_receive_message_length", 2 * options.max_request_bytes),
        # A compressed message of 30 MB could unpack to 30 GB; images are compressed already
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.max_allowed_incoming_connections", options.max_connections),
        ("grpc.max_concurrent_streams", 128),
        ("grpc.server_handshake_timeout_ms", 1000 * options.upload_timeout_s),
        ("grpc.max_connection_idle_ms", 1000 * options.keep_alive_timeout_s),
        # Long connections are renewed, so that clients find new servers. gRPC varies the age by 10 %
        ("grpc.max_connection_age_ms", 30 * 60 * 1000),
        ("grpc.max_connection_age_grace_ms", options.deadline_ms + 5000),
        # A client that has vanished is noticed; clients may send pings every 10 s themselves
        ("grpc.keepalive_time_ms", 60 * 1000),
        ("grpc.keepalive_timeout_ms", 20 * 1000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10 * 1000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


async def serve(options: Options) -> None:
    """Serve until SIGTERM, then end: refuse new calls, finish the running ones, and close the connections.

    Raises:
        OSError: the address cannot be used.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopping.set)
    version = Version(options.version_file)
    loop.add_signal_handler(signal.SIGHUP, version.read)
    memory = Memory(_MAX_MESSAGES * options.max_request_bytes)
    predictions, others, watches = (
        Calls(limit, options.upload_timeout_s, memory)
        for limit in (options.max_calls, _MAX_OTHER_CALLS, _MAX_OTHER_CALLS)
    )
    readiness = Readiness(options.operations)
    metrics = Metrics()
    forwarding = Forwarding(options, predictions, readiness, metrics)
    inference = [SERVICE, OPEN_INFERENCE_SERVICE]
    services = {
        SERVICE: InferenceService(options, version, forwarding, others, readiness, metrics).handlers(),
        OPEN_INFERENCE_SERVICE: OpenInferenceService(options, version, forwarding, others, readiness).handlers(),
        HEALTH_SERVICE: HealthService(inference, readiness, others, watches).handlers(),
        REFLECTION_SERVICE: ReflectionService([*inference, HEALTH_SERVICE, REFLECTION_SERVICE], others).handlers(),
    }
    server = make_server(services, channel_options(options))
    _check_address(options.listen)
    try:
        server.add_insecure_port(options.listen)
    except RuntimeError as error:
        raise OSError("the port is in use") from error
    await server.start()
    sys.stdout.write(f"{LISTENING}\n")
    sys.stdout.flush()
    watching = asyncio.create_task(memory.watch())
    await stopping.wait()
    readiness.stopping.set()
    closing = asyncio.create_task(server.stop(options.drain_timeout_s))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(options.drain_timeout_s):
            await predictions.wait_until_none()
            await watches.wait_until_none()
    await server.stop(None)  # also ends streams of reflection that a client keeps open
    await closing
    watching.cancel()


def _check_address(listen: str) -> None:
    """Check that this process can listen on an address. gRPC itself only says that it cannot.

    Raises:
        OSError: it cannot.
    """
    host, _, port = listen.rpartition(":")
    family, kind, _, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
