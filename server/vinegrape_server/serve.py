"""Serve an archive in the foreground: check, start, wait until ready, watch, stop."""

from __future__ import annotations

import errno
import socket
import sys
from pathlib import Path

from vinegrape_handler.errors import SettingError
from vinegrape_server import plan as planning
from vinegrape_server.archive_info import ArchiveInfo
from vinegrape_server.host.console import say
from vinegrape_server.host.http import reachable
from vinegrape_server.host.instance import instance_folder
from vinegrape_server.host.signals import Stop
from vinegrape_server.operations.metrics import make_registry
from vinegrape_server.operations.port import operations
from vinegrape_server.plan import Plan
from vinegrape_server.settings import LOOPBACK, ServeSettings
from vinegrape_server.supervisor import Supervisor
from vinegrape_server.torchserve import configuration
from vinegrape_server.torchserve.java import find_java


def serve(settings: ServeSettings, stop: Stop) -> None:
    """Serve until asked to stop.

    Raises:
        VinegrapeError: a setting, archive, Java or port that cannot work, or a server that ended by itself.
    """
    archive = ArchiveInfo.read(Path(settings.archive))
    torch_installed = planning.torch_installed()
    plan = planning.make_plan(settings, archive, planning.count_gpus(ask_torch=torch_installed), torch_installed)
    java = find_java()
    _check_ports(settings)
    with instance_folder() as folder:
        configuration.prepare(plan, folder)
        with (
            Supervisor(plan, java, folder) as server,
            operations(
                settings.operations_host,
                settings.operations_port,
                server.why_not_live,
                server.why_not_ready,
                make_registry(plan, server),
            ),
        ):
            if server.wait_until_ready(stop):
                say(banner(plan), sys.stdout)
                server.watch(stop)
            say("Stopping.\n", sys.stdout)
            server.stop(stop)


def banner(plan: Plan) -> str:
    """One screen that says where the server listens and what to try."""
    settings, metadata = plan.settings, plan.archive.metadata
    host = settings.host
    url = f"http://{reachable(host)}:{settings.rest_port}/predictions/{metadata.name}"
    device = f"{plan.gpus} GPU" if plan.gpus else "CPU"
    batches = f"batches of {plan.batch_size} within {settings.max_batch_delay_ms} ms"
    if plan.batch_size == 1:
        batches = "one request at a time"
    workers = "1 worker" if plan.workers == 1 else f"{plan.workers} workers"
    return f"""
  {metadata.name} {metadata.version}: {metadata.architecture}, {len(metadata.classes)} classes
  {plan.worker.backend} on {device}, {workers}, {batches}

    REST        http://{host}:{settings.rest_port}
    gRPC        {host}:{settings.grpc_port}
    operations  http://{settings.operations_host}:{settings.operations_port}/metrics, /readyz, /livez
    management  http://{LOOPBACK}:{settings.management_port}, from this machine only

  Try:   curl -T docs/leaf.png {url}
  About: curl -H 'Accept: application/json' {url}
  Stop:  Ctrl-C

"""


def _check_ports(settings: ServeSettings) -> None:
    for name, port in settings.ports.items():
        host = settings.host_of(name)
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
        except OSError as error:
            what = "PORT" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "HOST"
            option = name if what == "PORT" else "operations_host" if name == "operations_port" else "host"
            raise SettingError(
                f"Cannot listen on {host or repr(host)}:{port} ({error.strerror}). "
                f"Choose another: --{option.replace('_', '-')} {what}"
            ) from error
