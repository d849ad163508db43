"""The server's log, to standard error: as text for people, or as JSON that Google Cloud reads.

One event is one line. In JSON it has the keys `time`, `severity`, `source` and `message`; `severity` is one of Cloud
Logging's (https://cloud.google.com/logging/docs/structured-logging).
"""

from __future__ import annotations

import re
import sys
from typing import Literal

from vinegrape_server.host.console import write_console
from vinegrape_server.json_log import json_line

LogFormat = Literal["text", "json"]

# A line of TorchServe, see serve_config/log4j2.xml: time, level, logger, message
_JAVA = re.compile(r"\d{4}-\d\d-\d\dT[\d:]+,\d{3} +(?P<level>[A-Z]+) +(?P<logger>\S+) - (?P<message>.*)", re.DOTALL)
_SEVERITIES = {"DEBUG": "DEBUG", "INFO": "INFO", "WARN": "WARNING", "ERROR": "ERROR", "FATAL": "CRITICAL"}
_WORKER_LOGGER = "MODEL_LOG"  # TorchServe logs under this name what a worker writes to standard error


class _State:
    log_format: LogFormat = "text"


def choose_format(log_format: LogFormat) -> None:
    """Choose the format of all later events of this process."""
    _State.log_format = log_format


def log(message: str, severity: str = "WARNING") -> None:
    """Write an event of the supervisor."""
    if _State.log_format == "json":
        write_console(json_line(severity, "supervisor", message), sys.stderr)
    else:
        write_console(f"vinegrape: {message}\n", sys.stderr)


def forward(line: str) -> None:
    """Write a line of TorchServe or of one of its workers."""
    write_console(_as_json(line) if _State.log_format == "json" else line, sys.stderr)


def _as_json(line: str) -> str:
    found = _JAVA.fullmatch(line.rstrip("\n"))
    if not found:
        return json_line("WARNING", "torchserve", line.rstrip("\n"))
    source = "worker" if found["logger"] == _WORKER_LOGGER else "torchserve"
    return json_line(_SEVERITIES.get(found["level"], "WARNING"), source, found["message"])
