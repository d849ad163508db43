"""Events as text and as JSON."""

import json
import logging

import pytest

from vinegrape_server.host import log as module
from vinegrape_server.host.log import choose_format, forward, log
from vinegrape_server.json_log import JsonFormatter

JAVA = "2026-01-31T10:20:30,400 WARN  MODEL_LOG - vinegrape worker cannot start: no weights\n"


@pytest.fixture
def _as_json(monkeypatch):
    monkeypatch.setattr(module._State, "log_format", "text")
    choose_format("json")


def test_text_is_for_people(capsys):
    log("It is started again.")
    forward(JAVA)
    assert capsys.readouterr().err == f"vinegrape: It is started again.\n{JAVA}"


@pytest.mark.usefixtures("_as_json")
def test_an_event_is_one_line_of_json(capsys):
    log("The disk\nis full.", "ERROR")
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    assert list(event) == ["time", "severity", "source", "message"]
    assert (event["severity"], event["source"], event["message"]) == ("ERROR", "supervisor", "The disk\nis full.")


@pytest.mark.usefixtures("_as_json")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (JAVA, ("WARNING", "worker", "vinegrape worker cannot start: no weights")),
        (
            "2026-01-31T10:20:30,400 ERROR WorkerThread - Backend worker error\n",
            ("ERROR", "torchserve", "Backend worker error"),
        ),
        ("Exception in thread main\n", ("WARNING", "torchserve", "Exception in thread main")),
    ],
)
def test_lines_of_torchserve_and_its_workers_get_their_severity(capsys, line, expected):
    forward(line)
    event = json.loads(capsys.readouterr().err)
    assert (event["severity"], event["source"], event["message"]) == expected


def test_records_of_pythons_logging():
    record = logging.LogRecord("vinegrape", logging.ERROR, "", 1, "It failed:\n%s", ("reason",), None)
    event = json.loads(JsonFormatter("gateway").format(record))
    assert (event["severity"], event["source"], event["message"]) == ("ERROR", "gateway", "It failed: | reason")
