"""The workflows and the commit hook run make targets that exist; `make lint` checks the rest of the workflows."""

import re

import pytest
import yaml

from tests.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())
JOBS = [
    pytest.param(job, id=f"{path.stem}-{name}")
    for path in WORKFLOWS
    for name, job in yaml.safe_load(path.read_text())["jobs"].items()
]
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def make_targets(command: str) -> list[str]:
    return re.findall(r"\bmake ([\w-]+)", command)


@pytest.mark.parametrize("job", JOBS)
def test_make_targets_exist(job):
    assert {target for step in job["steps"] for target in make_targets(step.get("run", ""))} <= TARGETS


def test_the_commit_hook_runs_make_lint():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [make_targets(hook["entry"]) for hook in repository["hooks"]] == [["lint"]]
    assert "lint" in TARGETS


def test_ci_runs_what_developers_run():
    steps = [step for parameter in JOBS for step in parameter.values[0]["steps"]]
    run = {target for step in steps for target in make_targets(step.get("run", ""))}
    assert run == {"lint", "types", "test-all", "images", "loadtest"}


@pytest.mark.parametrize("job", JOBS)
def test_a_job_has_a_time_limit_and_no_permissions_beyond_those_of_the_workflow(job):
    """Without a limit, GitHub stops a job that hangs only after six hours."""
    assert job["timeout-minutes"] <= 60
    assert "permissions" not in job


def test_pinned_actions_name_their_version():
    lines = [line for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    assert [line for line in lines if not re.search(r"@[0-9a-f]{40}  # v\d+\.\d+\.\d+$", line)] == []
