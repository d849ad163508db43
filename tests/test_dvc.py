"""`dvc.yaml`: DVC runs the commands of docs/training.md in a clone of this repository, on drawn leaves."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from PIL import Image

from tests.conftest import ROOT
from tests.support.pages import blocks
from tests.support.repack import read_metadata
from vinegrape_training.data import drawn_leaves
from vinegrape_training.fit.config import CONFIG_FOLDER

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
TRAINING = ROOT / "docs" / "training.md"
SOURCES = ("cli", "clients", "handler", "loadtests", "server", "training")

ARCHIVE = "runs/dvc/store/vinegrape.mar"
UP_TO_DATE = "Data and pipelines are up to date."

SMALL = {
    "data": {"dir": "data/grapevine_leaves"},
    "recipe": "model=small_cnn optimizer=adamw_scratch weights=none input_size=32 trainer.max_epochs=1 "
    "outliers.dir=data/foreign",
    "inputs": {"outliers": "data/foreign"},
    "options": {"evaluate": "--seed 1 --folds 2", "robustness": "--required", "export": "--min-int8-agreement 0"},
}


def outputs(stage: str) -> list[str]:
    return STAGES[stage].get("do", STAGES[stage])["outs"]


def test_the_stages_lead_from_images_to_an_archive():
    assert list(STAGES) == ["check", "input", "evaluate", "train", "export", "archive"]
    assert ARCHIVE in outputs("archive")


def test_every_output_is_in_a_folder_that_git_ignores():
    """The committed archive must not become an output, because `dvc repro` deletes outputs."""
    for stage in STAGES:
        for path in outputs(stage):
            assert path.startswith("runs/dvc/")
            subprocess.run(["git", "check-ignore", "--quiet", path], cwd=ROOT, check=True)


@pytest.mark.parametrize("stage", ["evaluate", "train"])
def test_the_settings_are_those_of_the_configuration(stage):
    tracked = {ROOT / file for params in STAGES[stage]["params"] for file in params}
    assert tracked == {path for path in CONFIG_FOLDER.rglob("*.yaml") if path.parent.name != "logger"}


def test_the_parameters_repeat_no_setting():
    assert PARAMS["recipe"] == ""
    assert set(PARAMS["options"].values()) == {""}


def test_no_remote_is_committed():
    assert "remote" not in (ROOT / ".dvc" / "config").read_text()


class Clone:
    """A clone of this repository, whose DVC writes to no other folder of this machine.

    Args:
        folder: of the clone.
        home: for what DVC keeps for all repositories.
    """

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        programs = Path(sys.executable).parent
        self.environment = {
            **{
                name: value for name, value in os.environ.items() if not name.startswith(("VINEGRAPE_", "GIT_", "DVC_"))
            },
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": ":".join(str(folder / source) for source in SOURCES),
            "DVC_TEST": "1",  # DVC looks for no newer version of itself
            "DVC_NO_ANALYTICS": "1",
            **{f"DVC_{name}_DIR": str(home / name) for name in ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE")},
            **{f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
        }

    def run(self, line: str) -> str:
        """Run a shell command in the clone, and return its output."""
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line], cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600,
        )  # fmt: skip
        assert result.returncode == 0, f"{line}\n{result.stdout}"
        return result.stdout

    def read(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Clone:
    """A clone with the present files, committed, and with small parameters."""
    pytest.importorskip("dvc", reason="DVC is not installed: pip install -c constraints.txt -e '.[dvc]'")
    folder = tmp_path_factory.mktemp("dvc")
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder / "clone")], check=True)
    clone = Clone(folder / "clone", folder / "home")
    listed = subprocess.check_output(["git", "ls-files", "-z", "-m", "-o", "--exclude-standard"], cwd=ROOT, text=True)
    for path in filter(None, listed.split("\0")):  # changes that are not committed yet
        if (ROOT / path).is_file():
            (clone.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (clone.folder / path).write_bytes((ROOT / path).read_bytes())
    (clone.folder / "params.yaml").write_text(yaml.safe_dump(SMALL))
    for source in "abcdefghijkl":  # enough sources of outliers for each fold
        path = clone.folder / "data" / "foreign" / "things" / source / "1.png"
        path.parent.mkdir(parents=True)
        Image.new("RGB", (32, 32), "navy").save(path)
    clone.run("git checkout -q -b drawn && git add --all && git commit --quiet --allow-empty --message Small")
    return clone


def documented(block: int, replaced: Mapping[str, str]) -> list[str]:
    """The lines of a block for DVC on the page, as they are run here."""
    text = [each.text for each in blocks(TRAINING) if each.tag == "dvc"][block]
    for old, new in replaced.items():
        assert old in text
        text = text.replace(old, new)
    return text.splitlines()


@pytest.mark.trains
@pytest.mark.timeout(1200)
@pytest.mark.xdist_group("dvc")
def test_dvc_runs_the_pipeline_and_brings_older_versions_back(clone):
    run = clone.run
    committed = clone.read("model_store/vinegrape.mar")
    remote = clone.folder.parent / "remote"
    replaced = {"gs://BUCKET/vinegrape": str(remote), "data fetch --to": "data draw --images-per-class 6 --side 64"}
    for line in documented(0, replaced):
        if not re.match(r"\. \.venv|pip install", line):  # this environment is used, with a remote in a folder
            run(line)
    first, images = clone.read(ARCHIVE), sorted((clone.folder / "data" / "grapevine_leaves").rglob("*.png"))
    assert read_metadata(clone.folder / ARCHIVE).metrics["images"] == len(images) == 30
    assert run("git status --porcelain") == ""
    commit = run("git rev-parse HEAD").strip()

    # the second run does nothing
    before = (clone.folder / ARCHIVE).stat().st_mtime_ns
    assert run("dvc status").strip() == UP_TO_DATE
    assert UP_TO_DATE in run("dvc repro")
    assert (clone.folder / ARCHIVE).stat().st_mtime_ns == before

    # changed outliers, settings and images concern the stages that read them
    (clone.folder / "data" / "foreign" / "things" / "a" / "2.png").write_bytes(clone.read("docs/leaf.png"))
    assert stages_of(run("dvc status")) == {"input@outliers"}
    (clone.folder / "data" / "foreign" / "things" / "a" / "2.png").unlink()
    optimizer = "training/vinegrape_training/conf/optimizer/adamw_scratch.yaml"
    run(f"echo '# a comment changes nothing' >> {optimizer}")
    assert run("dvc status").strip() == UP_TO_DATE
    run(f"sed -i 's/mixup: 0.0/mixup: 0.1/' {optimizer}")
    assert stages_of(run("dvc status")) == {"evaluate", "train"}
    run(f"git checkout --quiet {optimizer}")
    drawn_leaves.draw_leaf("Ak", drawn_leaves.image_rng(1, "Ak", 1), 64).save(images[0].with_name("new.png"))
    run("dvc add data/grapevine_leaves")
    assert stages_of(run("dvc status")) == {"check", "evaluate", "train", "export"}

    # so the next version is made with the new image
    printed = run("dvc repro")
    assert re.findall(r"Running stage '([\w@]+)'", printed) == ["check", "evaluate", "train", "export", "archive"]
    second = clone.read(ARCHIVE)
    assert read_metadata(clone.folder / ARCHIVE).metrics["images"] == 31
    assert second != first
    run("git add --update && git commit --quiet --message Second && dvc push")

    # older and newer versions come back, from the cache and from the remote
    for line in documented(1, {"COMMIT": commit}):
        run(line)
    assert clone.read(ARCHIVE) == first
    assert sorted((clone.folder / "data" / "grapevine_leaves").rglob("*.png")) == images
    assert UP_TO_DATE in run("dvc repro")
    run("git checkout --quiet drawn")
    run("rm -rf .dvc/cache runs data/grapevine_leaves && dvc pull")
    assert clone.read(ARCHIVE) == second
    assert len(list((clone.folder / "data" / "grapevine_leaves").rglob("*.png"))) == 31
    assert clone.read("model_store/vinegrape.mar") == committed


def stages_of(status: str) -> set[str]:
    """The names of the stages that `dvc status` lists as changed."""
    return set(re.findall(r"^([\w@]+):$", status, re.MULTILINE))
