"""Serve an archive in the foreground: check the settings, then start, watch and stop TorchServe."""

from __future__ import annotations

import errno
import socket
import sys
from pathlib import Path

from vinegrape_handler.errors import SettingError
from vinegrape_server.archive_info import ArchiveInfo
from vinegrape_server.gateway import process as gateway_process
from vinegrape_server.gateway.process import GatewayProcess
from vinegrape_server.host.console import write_console
from vinegrape_server.host.http import Address, reachable
from vinegrape_server.host.instance import instance_folder
from vinegrape_server.host.machine import count_gpus, torch_installed
from vinegrape_server.host.signals import Stop
from vinegrape_server.operations.metrics import make_registry
from vinegrape_server.operations.port import serve_operations
from vinegrape_server.plan import Plan, make_plan
from vinegrape_server.settings import ServeSettings
from vinegrape_server.supervisor import Supervisor
from vinegrape_server.torchserve import configuration
from vinegrape_server.torchserve.java import find_java


def serve_archive(settings: ServeSettings, stop: Stop) -> None:
    """Serve the archive of `settings` until a stop is requested.

    Raises:
        VinegrapeError: a setting, the archive, Java or a port cannot be used, or TorchServe has ended by itself.
    """
    archive = ArchiveInfo.read(Path(settings.archive))
    has_torch = torch_installed()
    plan = make_plan(settings, archive, count_gpus(use_torch=has_torch), has_torch)
    java = find_java()
    check_ports(settings)
    with instance_folder() as folder:
        configuration.prepare(plan, folder)
        rest = Address(settings.host_of("rest_port"), settings.rest_port)
        with (
            Supervisor(plan, java, folder) as supervisor,
            GatewayProcess(
                gateway_process.options(plan, rest),
                gateway_process.environment(folder / configuration.METRICS_FOLDER),
                folder,
            ) as gateway,
            serve_operations(
                settings.operations_host,
                settings.operations_port,
                supervisor.why_not_live,
                lambda: (
                    supervisor.why_not_ready() or ("" if gateway.is_listening() else "the gRPC gateway is not running")
                ),
                make_registry(plan, supervisor.pid, supervisor.worker_metrics, supervisor.client),
            ),
        ):
            if supervisor.wait_until_ready(stop):
                gateway.check()
                write_console(banner(plan), sys.stdout)
                supervisor.watch(stop)
            write_console("Stopping.\n", sys.stdout)
            gateway.stop_gracefully()
            gateway.wait(stop, settings.drain_timeout_s)
            supervisor.stop(stop)


def check_ports(settings: ServeSettings) -> None:
    """Check that this machine can listen on every port.

    Raises:
        SettingError: a port or an address cannot be used.
    """
    for name, port in settings.ports.items():
        if port == 0:
            continue
        host = settings.host_of(name)
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                option = f"--{name.replace('_', '-')} PORT"
            else:
                option = "--operations-host HOST" if name == "operations_port" else "--host HOST"
            raise SettingError(
                f"Cannot listen on {host or repr(host)}:{port} ({error.strerror}). Choose another: {option}"
            ) from error


def banner(plan: Plan) -> str:
    """Return the text that a started server prints: its model, its addresses, and commands to try."""
    settings, metadata = plan.settings, plan.archive.metadata
    host = settings.host
    url = f"http://{reachable(host)}:{settings.rest_port}/predictions/{metadata.name}"
    device = f"{plan.gpus} GPU" if plan.gpus else "CPU"
    batches = f"batches of up to {settings.batch_size} within {settings.max_batch_delay_ms} ms"
    if settings.batch_size == 1:
        batches = "no batching"
    workers = "1 worker" if settings.workers == 1 else f"{settings.workers} workers"
    return f"""
  {metadata.name} {metadata.version}: {metadata.architecture}, {len(metadata.classes)} classes
  {settings.worker.backend} on {device}, {workers}, {batches}

    REST        http://{host}:{settings.rest_port}
    gRPC        {host}:{settings.grpc_port}
    operations  http://{settings.operations_host}:{settings.operations_port}/metrics, /readyz, /livez

  Classify a leaf:  curl -T docs/leaf.png {url}
  Show the model:   curl -H 'Accept: application/json' {url}
  Stop the server:  Ctrl-C

"""
