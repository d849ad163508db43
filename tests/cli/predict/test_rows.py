import csv
import io
import json

import click
import pytest

from tests.support import stand_in
from vinegrape_cli.predict.rows import COLUMNS, Writer, resume, row_of
from vinegrape_client import Prediction, Result
from vinegrape_client.errors import BrokenImage, Overloaded

NAME = 'a, "b" é.png'
GOOD = Result(NAME, Prediction.from_json(stand_in.prediction()))
UNKNOWN = Result("u.png", Prediction.from_json(stand_in.prediction(label=None, known=False, ood_score=7.5)))
BROKEN = Result("x.png", error=BrokenImage("It is broken."))
REFUSED = Result("y.png", error=Overloaded("Too many."))
MISSING = Result("z.png", error=FileNotFoundError(2, "No such file or directory"))
RESULTS = [GOOD, UNKNOWN, BROKEN, REFUSED, MISSING]


def text(format_: str, results=RESULTS, top_k=None) -> str:
    writer = Writer(format_, width=14)
    return writer.header() + "".join(writer.line(row_of(result, top_k)) for result in results)


def test_csv():
    rows = list(csv.DictReader(io.StringIO(text("csv"), newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert [row["path"] for row in rows] == [NAME, "u.png", "x.png", "y.png", "z.png"]
    assert [row["label"] for row in rows] == ["Ak", "", "", "", ""]
    assert [row["known"] for row in rows] == ["", "False", "", "", ""]
    assert [row["code"] for row in rows] == ["", "", "422", "429", "0"]
    assert [row["error"] for row in rows] == ["", "", "broken_image", "overloaded", "unreadable"]
    assert rows[-1]["message"] == "The file cannot be read: No such file or directory"
    assert json.loads(rows[0]["probabilities"]) == {"Ak": 0.7, "Nazli": 0.3}
    assert (float(rows[0]["probability"]), rows[1]["ood_score"], rows[0]["model_version"]) == (0.7, "7.5", "1")


def test_json_lines_are_the_path_and_the_body_of_the_response():
    rows = [json.loads(line) for line in text("jsonl").splitlines()]
    assert rows[0] == {"path": NAME, **stand_in.prediction()}
    assert rows[2] == {"path": "x.png", **BrokenImage("It is broken.").to_json()}


def test_a_table():
    lines = text("table").splitlines()
    assert lines[0] == f"{NAME:14}  Ak          Ak 0.700, Nazli 0.300"
    assert lines[1] == "u.png           (unknown)   Ak 0.700, Nazli 0.300"
    assert lines[2] == "x.png           error broken_image: It is broken."


@pytest.mark.parametrize("format_", ["table", "jsonl", "csv"])
def test_fewer_classes(format_):
    assert "0.3" in text(format_, [GOOD])
    assert "0.3" not in text(format_, [GOOD], top_k=1)


@pytest.mark.parametrize("format_", ["csv", "jsonl"])
def test_a_file_is_continued_without_temporary_errors_and_the_incomplete_row(tmp_path, format_):
    path = tmp_path / "rows"
    assert resume(path, format_) == set()
    assert path.read_text() == text(format_, [])
    complete = text(format_)
    path.write_text(complete + complete.splitlines()[-1][:9])
    assert resume(path, format_) == {NAME, "u.png", "x.png"}
    assert path.read_text() == text(format_, [GOOD, UNKNOWN, BROKEN])
    assert resume(path, format_) == {NAME, "u.png", "x.png"}
    assert [file.name for file in tmp_path.iterdir()] == ["rows"]


@pytest.mark.parametrize("format_", ["csv", "jsonl"])
@pytest.mark.parametrize("content", ["path,label\na.png,Ak\n", "my notes\n", '["a list"]\n', '{"label": "Ak"}\n'])
def test_another_file_is_not_changed(tmp_path, format_, content):
    (tmp_path / "mine").write_text(content)
    with pytest.raises(click.UsageError, match="left as it is"):
        resume(tmp_path / "mine", format_)
    assert (tmp_path / "mine").read_text() == content
