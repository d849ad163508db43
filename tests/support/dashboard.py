"""Read the committed dashboard of Grafana."""

import json
from typing import Any

import pytest

from tests.support.pages import ROOT

GRAFANA = ROOT / "serve_config" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "vinegrape.json"


def dashboard() -> dict[str, Any]:
    """The JSON of the dashboard."""
    content: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return content


def panels() -> list[dict[str, Any]]:
    """The panels that show something, without the titles of rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[Any]:
    """The title of the panel and the expression of every query, as parameters of a test."""
    return [
        pytest.param(panel["title"], target["expr"], id=f"{panel['title']} {target['refId']}")
        for panel in panels()
        for target in panel["targets"]
    ]
