"""README and docs: blocks tagged "live" run against a server, and blocks tagged "steps" train a model."""

import json
import logging
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from docs import generate
from tests.conftest import program
from tests.support.pages import PAGES, ROOT, blocks
from tests.support.server import serving
from vinegrape_cli.main import vinegrape
from vinegrape_client import Prediction
from vinegrape_server.settings import ServeSettings

PORTS = ("rest_port", "grpc_port", "operations_port", "edge_port")
EDGE = f"127.0.0.1:{ServeSettings().edge_port}"
BLOCKS = [(page, block) for page in PAGES for block in blocks(page)]


def tagged(tag: str, language: str, *, edge: bool = False) -> list:
    """The blocks with a tag. Those that name the edge's port need a server with the edge."""
    return [
        pytest.param(block, id=f"{page.relative_to(ROOT)}: {block.text.splitlines()[0]}")
        for page, block in BLOCKS
        if (block.language, block.tag) == (language, tag) and (EDGE in block.text) == edge
    ]


@pytest.fixture(scope="module")
def documented_edge_server(archive, tmp_path_factory):
    """The committed model behind the edge."""
    program("haproxy", "haproxy")
    with serving(archive, tmp_path_factory.mktemp("documented_edge") / "log", edge=True) as live:
        yield live


def on_ports_of(server, text: str) -> str:
    """A block's text, with the default ports replaced by a server's."""
    for name in PORTS:
        default = f"127.0.0.1:{getattr(ServeSettings(), name)}"
        text = text.replace(default, f"127.0.0.1:{server.ports[name]}")
    return text


def run(command: list[str], cwd: Path = ROOT) -> str:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True, timeout=120).stdout


# test_edge.py reads these from a live server
WITH_THE_EDGE = re.compile(r"vinegrape_(queue_|response_seconds$|requests_in_progress$)")
# Only with a model that has a reference for drift; test_drift.py reads them from a live server
WITH_A_REFERENCE = re.compile(r"vinegrape_(drift_|image_|confidence$|ood_score$)")


def documented_metrics() -> list[tuple[str, str, set[str]]]:
    """Name, type and labels of our own metrics, from the table in docs/operations.md, without those of the edge."""
    rows = re.findall(
        r"^\| `(vinegrape_\w+)` \| (\w+) \| (.*?) \|", (ROOT / "docs/operations.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 10
    return [
        (name, kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels in rows
        if not WITH_A_REFERENCE.match(name) and not WITH_THE_EDGE.match(name)
    ]


def metrics_of(text: str) -> list[tuple[str, str, set[str]]]:
    """Name, type and labels of the metrics in Prometheus' text format."""
    return [
        (
            f"{metric.name}_total" if metric.type == "counter" else metric.name,
            metric.type,
            {label for sample in metric.samples for label in sample.labels} - {"le"},
        )
        for metric in text_string_to_metric_families(text)
    ]


@pytest.mark.parametrize("block", tagged("live", "sh"))
def test_the_server_returns_what_the_page_shows(block, server):
    printed = run(["bash", "-euo", "pipefail", "-c", on_ports_of(server, block.text)])
    if "/metrics" in block.text:
        assert [metric for metric in documented_metrics() if metric not in metrics_of(printed)] == []
        return
    response = json.loads(printed)
    assert "code" not in response  # an error of TorchServe itself
    if block.shown:
        shown = json.loads(block.shown)
        # the archive under test holds the present code, so its version may differ from that of the committed one
        response.get("model", {})["version"] = shown.get("model", {}).get("version")
        same = generate.same_answer(json.dumps(shown), json.dumps(response))
        assert same if "label" in shown else response == shown


@pytest.mark.parametrize("block", tagged("live", "python"))
def test_the_python_examples_print_the_predictions_of_the_server(block, server, leaf, tmp_path):
    """They run in a folder of their own, in which the files stand that they name."""
    (tmp_path / "leaves").mkdir()
    for name in ("leaf.png", "leaves/leaf.png"):
        (tmp_path / name).write_bytes(leaf)
    printed = run([sys.executable, "-c", on_ports_of(server, block.text)], cwd=tmp_path)
    prediction = Prediction.from_json(server.post(leaf).json())
    assert printed.splitlines()
    assert [line for line in printed.splitlines() if not line.endswith(str(prediction))] == []


def test_readme_classifies_a_folder_in_five_lines():
    (block,) = [block for page, block in BLOCKS if page.name == "README.md" and block.language == "python"]
    assert block.tag == "live"
    assert len([line for line in block.text.splitlines() if line]) == 5


@pytest.mark.live
@pytest.mark.tools
@pytest.mark.xdist_group("documented_edge_server")
@pytest.mark.parametrize("block", tagged("live", "sh", edge=True))
def test_the_server_with_the_edge_responds_to_the_examples(block, documented_edge_server):
    response = json.loads(run(["bash", "-euo", "pipefail", "-c", on_ports_of(documented_edge_server, block.text)]))
    assert "error" not in response


@pytest.mark.live
@pytest.mark.tools
@pytest.mark.xdist_group("documented_edge_server")
@pytest.mark.parametrize("block", tagged("live", "python", edge=True))
def test_the_python_examples_with_the_edge_print_the_label(block, documented_edge_server, leaf):
    printed = run([sys.executable, "-c", on_ports_of(documented_edge_server, block.text)])
    assert printed.strip() == documented_edge_server.post(leaf).json()["label"]


def test_each_page_that_shows_requests_has_live_blocks():
    """Without this test, a misspelt tag would remove a block from the tests above without a failure."""
    live = {page.name for page, block in BLOCKS if block.tag == "live"}
    assert {"README.md", "api.md", "operations.md"} <= live
    assert {block.tag for _, block in BLOCKS} == {"", "dvc", "live", "registry", "steps"}


@pytest.mark.trains
@pytest.mark.xdist_group("trained")
def test_the_steps_of_training_your_own_make_an_archive(tmp_path, monkeypatch):
    """README's steps, with fewer images and epochs. They run in this process, so that torch is imported only once."""
    monkeypatch.setattr(sys, "argv", sys.argv)  # `vinegrape train` sets it for Hydra
    ((_, block),) = [(page, block) for page, block in BLOCKS if block.tag == "steps"]
    smaller = block.text.replace("--images-per-class 40", "--images-per-class 10").replace("/tmp/", f"{tmp_path}/")
    extra = {"train": ["trainer.max_epochs=8"], "export": ["--min-int8-agreement", "0.8"]}
    for line in smaller.splitlines():
        words = shlex.split(line, comments=True)
        assert words.pop(0) == ".venv/bin/vinegrape"
        CliRunner().invoke(vinegrape, [*words, *extra.get(words[0], [])], catch_exceptions=False)
    assert (tmp_path / "store" / "vinegrape.mar").is_file()
    assert (tmp_path / "store" / "MODEL_CARD.md").is_file()
    assert not logging.getLogger("vinegrape_training").disabled  # Hydra can silence all loggers
