"""`vinegrape serve` and `vinegrape ready`."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any

import click

from vinegrape_cli.setting_options import setting_options
from vinegrape_server.errors import NotReady
from vinegrape_server.host.http import Address, get
from vinegrape_server.host.signals import stop_signals
from vinegrape_server.settings import ServeSettings, check_port


@click.command()
@setting_options()
def serve(config: Path | None, **values: Any) -> None:
    """Serve a model archive with TorchServe, in the foreground, until Ctrl-C.

    An option takes precedence over its environment variable, the variable over the file of --config, and the file over
    the default.

    \b
    Examples:
        vinegrape serve
        vinegrape serve --rest-port 9080 --workers 4
        vinegrape serve --archive other.mar --backend torchscript
    """
    settings = ServeSettings.from_values(values)
    # Handle signals before the slow imports: the kernel drops a signal that process 1 of a container does not handle
    with stop_signals() as stop:
        from vinegrape_server.serve import serve_archive

        serve_archive(settings, stop)


@click.command()
@setting_options("operations_host", "operations_port")
def ready(config: Path | None, operations_host: str, operations_port: int) -> None:
    """Exit with code 0 if the server on this machine accepts requests, else with code 1 and the reason.

    \b
    Wait for a server:
        until vinegrape ready; do sleep 1; done
    """
    check_port("operations_port", operations_port)
    try:
        response = get(Address(operations_host, operations_port), "/readyz", timeout_s=5)
    except OSError as error:
        raise NotReady(f"No server responds on port {operations_port} (operations_port): {error}") from error
    if response.status != HTTPStatus.OK:
        raise NotReady(f"The server is not ready: {response.body.decode().strip()}")
