"""Events of a log as JSON, one line each, with the severities of Google's Cloud Logging."""

from __future__ import annotations

import datetime
import json
import logging


def json_line(severity: str, source: str, message: str) -> str:
    """Return an event as one line of JSON."""
    time = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = {"time": time, "severity": severity, "source": source, "message": message}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n"


class JsonFormatter(logging.Formatter):
    """Formats the records of Python's logging as events.

    Args:
        source: the process that logs.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self._source = source

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its line break, see `logging.Formatter.format`."""
        return json_line(record.levelname, self._source, " | ".join(super().format(record).splitlines())).rstrip("\n")
