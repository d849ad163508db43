"""The committed rules of Prometheus: promtool's tests, what counts as a failure, and the runbook's sections."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import program
from tests.support.pages import ROOT, headings
from tests.support.prometheus import CONFIG, RULES, rules
from vinegrape_handler.errors import REFUSALS, WORKER_ERRORS, Overloaded
from vinegrape_server.edge.access_log import AccessLog
from vinegrape_server.settings import ServeSettings

RULE_TESTS = ROOT / "tests" / "serving" / "prometheus_rules_test.yml"
RUNBOOK = ROOT / "docs" / "runbook.md"
ALERTS = [rule for rule in rules() if "alert" in rule]
NAMES = {rule["alert"] for rule in ALERTS}
ERRORS = [*WORKER_ERRORS, *REFUSALS]


@pytest.mark.tools
def test_promtool_accepts_the_configuration_and_the_rules():
    result = promtool("check", "config", CONFIG)
    assert result.returncode == 0, result.stderr
    assert f"{len(rules())} rules found" in result.stdout


@pytest.mark.tools
def test_each_alert_fires_and_does_not_fire_as_it_is_meant():
    result = promtool("test", "rules", RULE_TESTS)
    assert result.returncode == 0, result.stdout + result.stderr


def test_each_alert_has_a_case_that_fires_and_one_that_does_not():
    cases = [
        case for test in yaml.safe_load(RULE_TESTS.read_text())["tests"] for case in test.get("alert_rule_test", [])
    ]
    fires = {
        (case["alertname"], alert["exp_labels"]["severity"]) for case in cases for alert in case["exp_alerts"] or []
    }
    assert fires == {(rule["alert"], rule["labels"]["severity"]) for rule in ALERTS}
    assert {case["alertname"] for case in cases if not case["exp_alerts"]} == NAMES


@pytest.mark.tools
@pytest.mark.parametrize("transport", ["rest", "grpc"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.type)
def test_only_errors_of_the_server_count_against_availability(error, transport, tmp_path):
    """The status and the type of each error, as the workers, the gateway and the edge count them."""
    series = f'vinegrape_responses_total{{transport="{transport}", status="{error.status}", error="{error.type}"}}'
    failed = error.status >= 500 or error is Overloaded
    value = [{"labels": 'instance:vinegrape_failures:total{objective="availability"}', "value": 1}]
    test = {
        "rule_files": [str(RULES)],
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": "1"}],
                "promql_expr_test": [
                    {
                        "expr": 'instance:vinegrape_failures:total{objective="availability"}',
                        "eval_time": "0m",
                        "exp_samples": value if failed else [],
                    }
                ],
            }
        ],
    }
    path = tmp_path / "test.yml"
    path.write_text(yaml.safe_dump(test))
    result = promtool("test", "rules", path)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_limit_of_the_latency_is_a_bucket():
    limits = set(re.findall(r'le="([^"]+)"', RULES.read_text()))
    buckets = {
        sample.labels.get("le")
        for metric in AccessLog(None).collect()
        if metric.name == "vinegrape_response_seconds"
        for sample in metric.samples
    }
    assert len(limits) == 1
    assert limits <= buckets


def test_the_memory_limit_is_that_of_the_base():
    (deployment,) = [
        each
        for each in yaml.safe_load_all((ROOT / "k8s" / "base" / "deployment.yaml").read_text())
        if each["kind"] == "Deployment"
    ]
    (limit,) = [c["resources"]["limits"]["memory"] for c in deployment["spec"]["template"]["spec"]["containers"]]
    (rule,) = [rule for rule in rules() if rule.get("record") == "vinegrape:memory_limit:bytes"]
    assert rule["expr"] == f"vector({limit.removesuffix('Gi')} * 1024 ^ 3)"


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: f"{rule['alert']} {rule['labels']['severity']}")
def test_each_alert_says_what_is_wrong_and_where_to_read_on(rule):
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    path, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert ROOT / path == RUNBOOK
    assert anchor == rule["alert"].lower()
    assert anchor in headings(RUNBOOK)


def test_each_section_of_the_runbook_has_an_alert_and_the_same_parts():
    sections = re.split(r"^## ", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]
    about_alerts = {
        title: text for title, _, text in (each.partition("\n") for each in sections) if title[:9] == "Vinegrape"
    }
    assert set(about_alerts) == NAMES
    parts = ["What users notice", "How to look", "Likely causes", "What to do", "It is over when"]
    for title, text in about_alerts.items():
        assert re.findall(r"^\*\*(.+?)\.?\*\*", text, re.MULTILINE) == parts, title


def test_the_configuration_scrapes_the_default_port():
    targets = {
        target
        for job in yaml.safe_load(CONFIG.read_text())["scrape_configs"]
        for target in job["static_configs"][0]["targets"]
    }
    assert targets == {f"127.0.0.1:{ServeSettings().operations_port}"}


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program("promtool", "prometheus"), *arguments], capture_output=True, text=True)
