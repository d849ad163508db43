"""The commands of docs/training.md that publish, fetch and serve an archive, with a folder instead of a bucket."""

import json
import shlex
import shutil

import pytest

from tests.conftest import ROOT
from tests.support.cli import run
from tests.support.pages import blocks
from tests.support.repack import read_metadata
from tests.support.server import serving


@pytest.mark.live
def test_what_is_published_can_be_fetched_and_served(tiny_archive, leaf, tmp_path):
    """The paths of the page are those of another folder here."""
    metadata = read_metadata(tiny_archive)
    for path in ("runs/dvc/store", "runs/dvc/evaluation"):
        (tmp_path / path).mkdir(parents=True)
    shutil.copyfile(tiny_archive, tmp_path / "runs/dvc/store/vinegrape.mar")
    (tmp_path / "runs/dvc/store/MODEL_CARD.md").write_text(f"# {metadata.name} {metadata.version}\n")
    evaluation = json.dumps({"data_digest": metadata.data_digest})
    (tmp_path / "runs/dvc/evaluation/evaluation.json").write_text(evaluation)
    (block,) = [each for each in blocks(ROOT / "docs" / "training.md") if each.tag == "registry"]
    text = block.text
    for old, new in {
        "gs://BUCKET/": f"{tmp_path}/",
        "runs/dvc/": f"{tmp_path}/runs/dvc/",
        "/tmp/v": f"{tmp_path}/v",
    }.items():
        assert old in text
        text = text.replace(old, new)
    *commands, serve = (shlex.split(line)[1:] for line in text.splitlines())
    assert [command[0] for command in commands] == ["publish", "fetch"]
    for command in commands:
        result = run(*command)
        assert result.returncode == 0, result.stderr
    assert serve == ["serve", "--archive", str(tmp_path / "vinegrape.mar")]
    with serving(tmp_path / "vinegrape.mar", tmp_path / "log") as server:
        assert server.post(leaf).json()["model"] == {"name": metadata.name, "version": metadata.version}
