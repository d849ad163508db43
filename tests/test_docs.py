"""README.md and docs/: generated parts are up to date; links, commands and options exist."""

import re
import shlex
import subprocess
import tomllib

import click
import pytest
from click.testing import CliRunner
from PIL import Image

from docs import generate
from tests.support.pages import PAGES, ROOT, anchors, commands, headings, links
from vinegrape_cli.main import vinegrape

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

ANSWER = """```json
{"label": "Ak", "probabilities": {"Ak": 0.9, "Nazli": 0.1}, "model": {"version": "1"}}
```
"""


def test_generated_parts_are_up_to_date():
    """If this fails: make docs."""
    assert generate.outdated_everywhere() == {}


def test_an_outdated_part_is_found_and_written_again(monkeypatch):
    monkeypatch.setitem(generate.PARTS, "sum", generate.Part(lambda: "1 + 1 = 2"))
    page = "Before\n<!-- generated: sum -->\n1 + 1 = 3\n<!-- end -->\nafter\n"
    assert generate.outdated(page) == ["sum"]
    updated = generate.update(page)
    assert updated == page.replace("3", "2")
    assert generate.outdated(updated) == []


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("0.9", "0.91", True),
        ("0.9", "0.93", False),
        ('"Ak", "prob', '"Nazli", "prob', False),
        ('"version": "1"', '"version": "2"', False),
        ('{"label"', "{label", False),
    ],
)
def test_an_answer_may_differ_only_in_rounding(old, new, same):
    assert generate.same_answer(ANSWER, ANSWER.replace(old, new)) is same


@each_page
def test_every_link_leads_to_a_file(page):
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


@each_page
def test_every_link_to_a_heading_leads_to_one(page):
    assert [anchor for target, anchor in anchors(page) if anchor not in headings(target)] == []


@each_page
def test_every_make_target_is_in_make_help(page):
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^  make ([a-z-]+)", shown, re.MULTILINE)
    targets = [re.match(r"[a-z-]*", command)[0] for command in commands(page, "make")]
    assert [target for target in targets if target and target not in listed] == []


@each_page
def test_every_vinegrape_command_and_option_exists(page):
    assert [fault for command in commands(page, "vinegrape") if (fault := unknown(command))] == []


def unknown(line: str) -> str:
    """The first subcommand or option of a command line that does not exist, with the line; empty if all exist."""
    words = shlex.split(line.replace("...", ""))
    command: click.Command = vinegrape
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        subcommand = command.get_command(click.Context(command), words.pop(0))
        if subcommand is None:
            return line
        command = subcommand
    if command.context_settings.get("ignore_unknown_options"):
        return ""
    parameters = command.get_params(click.Context(command))
    known = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return next((f"{option} in {line}" for option in options if option not in known), "")


def test_an_unknown_command_or_option_is_found():
    assert unknown("serve --rest-port 9080") == ""
    assert unknown("train data.dir=DATA --cfg job") == ""
    assert unknown("serve --rest-prot 9080") != ""
    assert unknown("data fetch --to data") == ""
    assert unknown("data get") != ""


@each_page
def test_image_tags_are_the_version_of_the_project(page):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    tags = re.findall(r"vinegrape-(?:serve|train):([\d.]+\d)", page.read_text())
    assert [tag for tag in tags if tag != version] == []


def test_every_page_is_in_the_index():
    index = ROOT / "docs" / "index.md"
    listed = {(index.parent / link).resolve() for link in links(index)}
    assert [page for page in PAGES if page not in listed and page not in (index, ROOT / "README.md")] == []


@pytest.mark.trains
@pytest.mark.xdist_group("trained")
def test_the_script_of_the_model_log_runs(drawn, tmp_path):
    from docs.notes import leaky_split  # imports torch

    small = ("model=small_cnn", "optimizer=adamw_scratch", "weights=none", "input_size=32", "trainer.max_epochs=5")
    result = CliRunner().invoke(leaky_split.main, [str(tmp_path), f"data.dir={drawn}", *small], catch_exceptions=False)
    assert result.stdout.endswith("% of 50 copies\n")  # a fifth of 50 images and 4 copies of each


@pytest.mark.trains
@pytest.mark.xdist_group("trained")
def test_the_script_that_draws_a_run_reads_the_files_of_tensorboard(tmp_path, monkeypatch):
    from docs import run_picture

    histories = []
    monkeypatch.setattr(run_picture, "SETTINGS", (*run_picture.SETTINGS, "input_size=32", "trainer.average_decay=null"))
    monkeypatch.setattr(run_picture, "draw_curves", lambda history, target: histories.append((history, target)))
    run_picture.draw_run(tmp_path / "run.png", images_per_class=10, epochs=2)
    ((history, target),) = histories
    assert target == tmp_path / "run.png"
    names = {f"{part}/{quantity}" for part in ("train", "validation") for quantity in ("loss", "accuracy")}
    assert [set(epoch) for epoch in history] == [names, names]
    assert len({epoch["train/loss"] for epoch in history}) == 2


@pytest.mark.trains
@pytest.mark.xdist_group("trained")
def test_the_script_that_compares_ood_scores_runs(drawn, tmp_path):
    from docs.notes import ood_scores  # imports torch, as the others do
    from vinegrape_training.experiments.cross_validation import CrossValidationPlan, cross_validate
    from vinegrape_training.fit.config import compose_config

    for kind in (f"things/{source}/1.png" for source in "abcdefghijkl"):
        (tmp_path / "foreign" / kind).parent.mkdir(parents=True)
        Image.new("RGB", (32, 32), "navy").save(tmp_path / "foreign" / kind)
    small = ("model=small_cnn", "optimizer=adamw_scratch", "weights=none", "input_size=32", "trainer.max_epochs=1")
    overrides = compose_config([f"data.dir={drawn}", f"outliers.dir={tmp_path / 'foreign'}", *small])
    cross_validate(overrides, tmp_path / "evaluation", CrossValidationPlan((1,), 2), int8=False)
    arguments = [str(tmp_path / "evaluation"), str(tmp_path / "foreign"), "--seed", "1"]
    result = CliRunner().invoke(ood_scores.main, arguments, catch_exceptions=False)
    rows = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    assert len(rows) == 8
    assert rows[-1].startswith("| trained with outliers | ")
    assert "(things)" in rows[-1]
