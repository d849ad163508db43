"""The committed dashboard of Grafana, without a server; test_monitoring.py runs its queries."""

import itertools
import re

import pytest
import yaml

from tests.support.dashboard import DASHBOARD, GRAFANA, dashboard, panels
from tests.support.pages import ROOT
from tests.support.prometheus import CONFIG

PROVISIONING = GRAFANA / "provisioning"


def test_the_panels_do_not_overlap():
    cells = [
        (column, line)
        for place in (panel["gridPos"] for panel in dashboard()["panels"])
        for column, line in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        )
    ]
    assert len(cells) == len(set(cells))
    assert {column for column, _ in cells} == set(range(24))


def test_each_panel_has_its_own_number_and_title():
    for key in ("id", "title"):
        values = [panel[key] for panel in dashboard()["panels"]]
        assert len(values) == len(set(values))


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_each_panel_says_what_it_shows(panel):
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert [target["refId"] for target in panel["targets"]] == list("ABCD"[: len(panel["targets"])])
    assert all(target.get("legendFormat") or target.get("format") == "table" for target in panel["targets"])


def test_the_dashboard_uses_its_variables_only():
    names = {variable["name"] for variable in dashboard()["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", DASHBOARD.read_text())) - {"__rate_interval", "__range", "__all"}
    assert used == names == {"datasource", "job", "instance"}


def test_the_jobs_of_the_rules_and_of_the_dashboard_are_scraped():
    jobs = {job["job_name"] for job in yaml.safe_load(CONFIG.read_text())["scrape_configs"]}
    assert jobs == {"vinegrape", "vinegrape-edge"}


def test_grafana_finds_the_dashboard_and_the_data_source():
    """Its provider reads the folder of a variable, which the command in docs/operations.md sets."""
    (source,) = yaml.safe_load((PROVISIONING / "datasources" / "prometheus.yaml").read_text())["datasources"]
    page = (ROOT / "docs" / "operations.md").read_text()
    assert source["url"].removeprefix("http://") in page
    assert source["type"] == "prometheus"
    assert source["isDefault"]
    (provider,) = yaml.safe_load((PROVISIONING / "dashboards" / "vinegrape.yaml").read_text())["providers"]
    variable = provider["options"]["path"].removeprefix("$")
    in_container, on_the_machine = re.findall(rf"\b{variable}=\"?([^\s\"]+)", page)
    # The command for a container mounts the folder of Grafana's files at /vinegrape
    mounted = in_container.replace("/vinegrape", str(GRAFANA.relative_to(ROOT)))
    assert ROOT / mounted == ROOT / on_the_machine.removeprefix("$PWD/") == DASHBOARD.parent
