"""The options of the gateway's command line."""

from __future__ import annotations

import argparse
import dataclasses
import typing
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """What the gateway serves and where it forwards to.

    Attributes:
        listen: host and port of gRPC, such as "127.0.0.1:7070".
        rest: where predictions are forwarded to: host and port, or the path of a Unix socket.
        operations: host and port of the operations port.
        model_name: name of the served model.
        version_file: file with the version of the served model; read again after SIGHUP.
        max_request_bytes: maximum bytes of one message.
        max_calls: maximum calls of `Predictions` at the same time.
        max_connections: maximum connections of all clients together.
        deadline_ms: milliseconds after which a call ends with DEADLINE_EXCEEDED, if its own deadline is not earlier.
        upload_timeout_s: seconds within which a message must arrive completely.
        keep_alive_timeout_s: seconds after which a connection without calls is closed.
        drain_timeout_s: seconds that a stop waits for running calls.
        log_format: "text" or "json", see `host.log`.
    """

    listen: str
    rest: str
    operations: str
    model_name: str
    version_file: str
    max_request_bytes: int
    max_calls: int
    max_connections: int
    deadline_ms: int
    upload_timeout_s: int
    keep_alive_timeout_s: int
    drain_timeout_s: int
    log_format: str

    @property
    def is_behind_edge(self) -> bool:
        """Whether calls arrive through the edge. Then REST is the edge's private entry, a Unix socket."""
        return self.rest.startswith("/")

    @classmethod
    def parse(cls, arguments: Sequence[str] | None = None) -> Options:
        """Read the options from a command line; that of this process if None."""
        parser = argparse.ArgumentParser(
            prog="python -m vinegrape_server.gateway", description="The gRPC gateway, started by `vinegrape serve`"
        )
        for name, type_ in typing.get_type_hints(cls).items():
            parser.add_argument(_option(name), type=type_, required=True)
        return cls(**vars(parser.parse_args(arguments)))

    def to_arguments(self) -> list[str]:
        """Return the command-line arguments that `parse` reads."""
        return [f"{_option(name)}={value}" for name, value in dataclasses.asdict(self).items()]


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
