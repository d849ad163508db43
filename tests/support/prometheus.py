"""Start a real Prometheus with the committed configuration, which scrapes a server of a test."""

import contextlib
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.conftest import program
from tests.support.processes import running
from tests.support.server import ROOT, Live, wait_until
from vinegrape_loadtests.local.server import free_port

FOLDER = ROOT / "serve_config" / "prometheus"
CONFIG = FOLDER / "prometheus.yml"
RULES = FOLDER / "rules.yml"


@dataclass
class Prometheus:
    """A running Prometheus.

    Attributes:
        port: of its web server.
    """

    port: int

    def get(self, path: str, **parameters: str) -> Any:
        """The data of a response of the HTTP API.

        Raises:
            httpx.HTTPStatusError: the query is not valid, or Prometheus is starting.
        """
        response = httpx.get(f"http://127.0.0.1:{self.port}/api/v1/{path}", params=parameters, timeout=30)
        response.raise_for_status()
        return response.json()["data"]

    def query(self, expression: str) -> dict[str, float]:
        """The values of an instant query, by the values of their labels."""
        data = self.get("query", query=expression)
        if data["resultType"] == "scalar":
            return {"": float(data["result"][1])}
        return {" ".join(row["metric"].values()): float(row["value"][1]) for row in data["result"]}

    def has_data(self, expression: str) -> bool:
        """Return whether a query returns at least one number."""
        return any(math.isfinite(value) for value in self.query(expression).values())

    def is_ready(self) -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return bool(self.query("vector(1)"))
        return False


def rules() -> list[dict[str, Any]]:
    """The committed rules: recording rules have the key `record`, and alerts `alert`."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


@contextlib.contextmanager
def scraping(live: Live, folder: Path) -> Iterator[Prometheus]:
    """Start Prometheus with the committed configuration and rules, but other ports and an interval of one second.

    Args:
        live: the server to scrape.
        folder: a folder for the files of Prometheus.
    """
    executable, port = program("prometheus", "prometheus"), free_port()
    target = f"127.0.0.1:{live.ports['operations_port']}"
    config = folder / CONFIG.name
    config.write_text(CONFIG.read_text().replace("127.0.0.1:8083", target).replace("15s", "1s"))
    shutil.copy(RULES, folder)
    arguments = [executable, f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
    arguments.append(f"--web.listen-address=127.0.0.1:{port}")
    with (folder / "log").open("w") as log, running(arguments, stdout=log, stderr=log):
        prometheus = Prometheus(port)
        wait_until(prometheus.is_ready)
        yield prometheus
