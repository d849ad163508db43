"""A real Prometheus with the committed rules scrapes a server: every expression an operator sees returns data."""

import dataclasses
import re
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import program
from tests.support import tiny_archive
from tests.support.dashboard import queries
from tests.support.images import solid
from tests.support.pages import ROOT, blocks
from tests.support.payloads import instances
from tests.support.prometheus import Prometheus, rules, scraping
from tests.support.server import Live, serving, wait_until
from vinegrape_handler.reference import Distribution

pytestmark = [pytest.mark.live, pytest.mark.tools, pytest.mark.xdist_group("monitored_server")]

ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDS = [rule for rule in rules() if "record" in rule]
SELECTOR = re.compile(r"(?:\b(?:\w+:)?vinegrape[_:][\w:]+|\bup\b)(?:\{[^}]*\})?")


@pytest.fixture(scope="module")
def monitored_server(tmp_path_factory) -> Iterator[Live]:
    """A model with OOD scores and a reference, behind the edge."""
    program("haproxy", "haproxy")
    folder = tmp_path_factory.mktemp("monitored")
    scores = {"ood_score": Distribution((0.1, 0.4), (1.0, 0.0, 0.0))}
    reference = dataclasses.replace(tiny_archive.RED_REFERENCE, values={**tiny_archive.RED_REFERENCE.values, **scores})
    tiny_archive.write_export(folder / "export", reference=reference, ood_threshold=tiny_archive.OOD_THRESHOLD)
    archive = tiny_archive.write_archive(folder / "vinegrape.mar", folder / "export")
    with serving(archive, folder / "log", edge=True, drift_window=100, feedback_folder=folder / "feedback") as live:
        yield live


@pytest.fixture(scope="module")
def prometheus(monitored_server, tmp_path_factory) -> Iterator[Prometheus]:
    """A Prometheus that has seen requests of each kind arrive: answers, errors of clients, feedback."""
    live, red = monitored_server, solid(tiny_archive.RED)
    with scraping(live, tmp_path_factory.mktemp("prometheus")) as started:

        def send() -> None:
            assert live.post(instances(*[red] * 20)).status_code == 200
            assert live.post(b"no image").status_code == 415
            assert live.client.get("/nothing").status_code == 404
            live.call(red)
            live.call(b"no image")

        live.post(solid(tiny_archive.BLUE))  # one image that the model does not know
        for _ in range(6):  # drift needs 100 answers; and from now on each series exists
            send()
        url = f"http://127.0.0.1:{live.ports['operations_port']}/feedback"
        assert httpx.post(url, json={"label": "Ak", "probability": 0.75, "truth": "Ak"}).status_code == 200
        wait_until(lambda: started.has_data("instance:vinegrape_requests:total > 0"))
        wait_until(lambda: started.has_data("haproxy_frontend_current_sessions"))
        wait_until(lambda: started.has_data("ts_host_memory_bytes"))  # TorchServe measures a moment after its start
        send()
        processed = 'sum by (transport) (increase(vinegrape_response_seconds_count{job="vinegrape"}[5m])) > 0'
        wait_until(lambda: len(started.query(processed)) == 2)
        burning = "job:vinegrape_burn_rate:3d >= 0"
        wait_until(lambda: len(started.query(burning)) == 2)
        yield started


def test_prometheus_evaluates_the_rules_without_errors(prometheus):
    groups = prometheus.get("rules")["groups"]
    loaded = [rule for group in groups for rule in group["rules"]]
    assert len(loaded) == len(ALERTS) + len(RECORDS)
    assert [(rule["name"], rule.get("lastError")) for rule in loaded if rule["health"] != "ok"] == []


def test_both_jobs_are_scraped(prometheus):
    assert {labels.split()[-1]: value for labels, value in prometheus.query("up").items()} == {
        "vinegrape": 1,
        "vinegrape-edge": 1,
    }


@pytest.mark.parametrize("rule", RECORDS, ids=lambda rule: f"{rule['record']} {rule.get('labels', '')}")
def test_every_recording_rule_returns_data(rule, prometheus):
    assert prometheus.has_data(rule["expr"])
    labels = ",".join(f'{name}="{value}"' for name, value in rule.get("labels", {}).items())
    assert prometheus.has_data(f"{rule['record']}{{{labels}}}")


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: f"{rule['alert']} {rule['labels']['severity']}")
def test_every_alert_is_computed_from_series_that_exist(rule, prometheus):
    prometheus.query(rule["expr"])
    selectors = SELECTOR.findall(rule["expr"])
    assert selectors
    assert [selector for selector in selectors if not prometheus.has_data(selector)] == []


@pytest.mark.parametrize(("panel", "expression"), queries())
def test_every_query_of_the_dashboard_returns_data(panel, expression, prometheus):
    substituted = expression
    for name, value in {"job": "vinegrape", "instance": ".*", "__rate_interval": "5m", "__range": "5m"}.items():
        substituted = re.sub(rf"\${name}\b", value, substituted)
    assert "$" not in substituted
    assert prometheus.has_data(substituted)


@pytest.mark.parametrize("name", ["job", "instance"])
def test_the_variables_of_the_dashboard_have_values(name, prometheus):
    parameters = {"match[]": "vinegrape_ready"}
    assert prometheus.get(f"label/{name}/values", **parameters)


RUNBOOK = ROOT / "docs" / "runbook.md"
RUNBOOK_QUERIES = [line for block in blocks(RUNBOOK) if block.language == "promql" for line in block.text.splitlines()]


@pytest.mark.parametrize("expression", RUNBOOK_QUERIES)
def test_every_query_of_the_runbook_returns_data(expression, prometheus):
    assert prometheus.has_data(expression)


def test_mistakes_of_clients_and_a_little_traffic_raise_no_alert(prometheus):
    assert [alert["labels"] for alert in prometheus.get("alerts")["alerts"]] == []
