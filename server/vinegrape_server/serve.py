"""Serve an archive in the foreground: check the settings, then start, watch and stop TorchServe."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from vinegrape_handler.errors import SettingError
from vinegrape_server.archive_info import ArchiveInfo
from vinegrape_server.children import Process
from vinegrape_server.edge import configuration as edge_configuration
from vinegrape_server.edge.access_log import AccessLog
from vinegrape_server.edge.haproxy import find_haproxy
from vinegrape_server.edge.metrics import EdgeMetrics
from vinegrape_server.edge.process import EdgeProcess
from vinegrape_server.feedback.endpoint import FeedbackEndpoint
from vinegrape_server.feedback.store import FeedbackStore
from vinegrape_server.gateway import process as gateway_process
from vinegrape_server.gateway.process import GatewayProcess
from vinegrape_server.host.console import write_console
from vinegrape_server.host.http import reachable
from vinegrape_server.host.instance import instance_folder
from vinegrape_server.host.log import choose_format, log
from vinegrape_server.host.machine import count_gpus, torch_installed
from vinegrape_server.host.signals import Stop
from vinegrape_server.models.control import serve_control
from vinegrape_server.operations.metrics import make_registry
from vinegrape_server.operations.port import serve_operations
from vinegrape_server.plan import Plan, Served, make_plan
from vinegrape_server.probes import EDGE, GATEWAY
from vinegrape_server.settings import ServeSettings
from vinegrape_server.supervisor import Supervisor, entry
from vinegrape_server.torchserve import configuration
from vinegrape_server.torchserve.java import find_java

if TYPE_CHECKING:
    from vinegrape_server.edge.traces import OpenTelemetryTraces

_BACKLOG = 128  # connections that wait to be accepted; the client of a further one retries after 1 s


def serve_archive(settings: ServeSettings, stop: Stop) -> None:
    """Serve the archive of `settings` until a stop is requested.

    Raises:
        VinegrapeError: a setting, the archive, Java or a port cannot be used, or TorchServe has ended by itself.
    """
    choose_format(settings.log_format)
    archive = ArchiveInfo.read(Path(settings.archive))
    has_torch = torch_installed()
    plan = make_plan(settings, archive, count_gpus(use_torch=has_torch), has_torch)
    java = find_java()
    haproxy = find_haproxy() if settings.edge else None
    check_ports(settings)
    with listen(settings, "operations_port") as listener, instance_folder(configuration.required_bytes(plan)) as folder:
        configuration.prepare(plan, folder)
        served = Served(plan)
        traces = start_traces(plan) if settings.traces else None
        access_log = AccessLog(sys.stdout if settings.access_log else None, traces)
        children: dict[str, Callable[[], Process]] = {}
        if haproxy:
            edge_configuration.prepare(plan, haproxy, folder)
            children[EDGE] = partial(EdgeProcess, served, haproxy, folder, access_log)
        children[GATEWAY] = partial(start_gateway, served, folder)
        with feedback_store(settings, folder) as feedback, Supervisor(served, java, folder, children) as supervisor:
            edge_metrics = EdgeMetrics(access_log, folder) if haproxy else None
            registry = make_registry(served, supervisor, edge_metrics, feedback)
            texts = {"/metrics/haproxy": edge_metrics.of_haproxy} if edge_metrics else {}
            endpoint = FeedbackEndpoint(feedback, served)
            probes = {"/livez": supervisor.why_not_live, "/readyz": supervisor.why_not_ready}
            with (
                serve_operations(listener, probes, registry, endpoint, texts),
                serve_control(folder, settings.operations_port, supervisor.models),
            ):
                if supervisor.wait_until_ready(stop):
                    announce(plan)
                    supervisor.watch(stop)
                if settings.log_format == "json":
                    log("Stopping.", "INFO")
                else:
                    write_console("Stopping.\n", sys.stdout)
                supervisor.stop(stop)
        if traces:
            traces.close()


def start_traces(plan: Plan) -> OpenTelemetryTraces:
    """Start to send traces.

    Raises:
        SettingError: OpenTelemetry is not installed, or one of its variables is not valid.
    """
    try:
        from vinegrape_server.edge.traces import OpenTelemetryTraces, otlp_processor

        return OpenTelemetryTraces(plan, otlp_processor())
    except ImportError as error:
        raise SettingError(
            f"traces is true, but {error.name} is not installed. Run: pip install -c constraints.txt -e '.[traces]'"
        ) from error
    except ValueError as error:
        raise SettingError(f"OpenTelemetry does not accept a variable OTEL_*: {error}") from error


def feedback_store(settings: ServeSettings, folder: Path) -> FeedbackStore:
    """Open the database of feedback, in the folder of the instance unless `feedback_folder` is set."""
    where = Path(settings.feedback_folder) if settings.feedback_folder else folder
    return FeedbackStore(where, settings.feedback_rows, settings.feedback_days)


def start_gateway(served: Served, folder: Path) -> GatewayProcess:
    """Start the gateway, which forwards to REST, through the edge's queue if there is an edge.

    Args:
        served: what is served.
        folder: the folder of the instance.
    """
    environment = gateway_process.environment(folder / configuration.METRICS_FOLDER)
    options = gateway_process.options(served.plan, entry(served.plan, folder), folder)
    return GatewayProcess(options, environment, folder, served)


def check_ports(settings: ServeSettings) -> None:
    """Check that this machine can listen on every port.

    Raises:
        SettingError: a port or an address cannot be used.
    """
    for name, port in settings.ports.items():
        if port:
            listen(settings, name).close()


def listen(settings: ServeSettings, name: str) -> socket.socket:
    """Listen on a port.

    Args:
        settings: the settings of the server.
        name: the name of the port's setting, such as "operations_port".

    Raises:
        SettingError: the port or its address cannot be used.
    """
    host, port = settings.host_of(name), settings.ports[name]
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            option = f"--{name.replace('_', '-')} PORT"
        else:
            option = "--operations-host HOST" if name == "operations_port" else "--host HOST"
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise SettingError(
            f"Cannot listen on {host or repr(host)}:{port} ({reason}). Choose another: {option}"
        ) from error


def announce(plan: Plan) -> None:
    """Say that the server is ready."""
    if plan.settings.log_format == "text":
        write_console(banner(plan), sys.stdout)
        return
    metadata, settings = plan.archive.metadata, plan.settings
    log(f"{metadata.name} {metadata.version} is ready, with {settings.workers} workers.", "INFO")


def banner(plan: Plan) -> str:
    """Return the text that a started server prints: its model, its addresses, and commands to try."""
    settings, metadata = plan.settings, plan.archive.metadata
    host = settings.host
    scheme = "https" if settings.edge and settings.tls_certificate else "http"
    port = settings.edge_port if settings.edge else settings.rest_port
    key = "-H 'X-Api-Key: KEY' " if settings.edge and settings.api_keys else ""
    url = f"{scheme}://{reachable(host)}:{port}/predictions/{metadata.name}"
    device = f"{plan.gpus} GPU" if plan.gpus else "CPU"
    batches = f"batches of up to {settings.batch_size} within {settings.max_batch_delay_ms} ms"
    if settings.batch_size == 1:
        batches = "no batching"
    workers = "1 worker" if settings.workers == 1 else f"{settings.workers} workers"
    if settings.edge:
        addresses = f"    REST, gRPC  {scheme}://{host}:{port}\n"
        advice = ""
    else:
        addresses = f"    REST        {scheme}://{host}:{port}\n    gRPC        {host}:{settings.grpc_port}\n"
        advice = "  For clients that you trust. --edge (needs HAProxy) adds limits, deadlines, API keys and TLS.\n\n"
    return f"""
  {metadata.name} {metadata.version}: {metadata.architecture}, {len(metadata.classes)} classes
  {settings.worker.backend} on {device}, {workers}, {batches}

{addresses}    operations  http://{settings.operations_host}:{settings.operations_port}/metrics, /readyz, /livez

{advice}  In a browser:     {url}
  Classify a leaf:  curl {key}-T docs/leaf.png {url}
  Show the model:   curl {key}-H 'Accept: application/json' {url}
  Stop the server:  Ctrl-C

"""
