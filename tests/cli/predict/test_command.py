"""`vinegrape predict`: in process, and against stand-ins and live servers."""

import csv
import json
import zipfile

import pytest
from click.testing import CliRunner
from PIL import Image

from tests.support import stand_in
from tests.support.cli import error_line, run
from vinegrape_cli.main import vinegrape

NO_IMAGE = b"This is text."


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder with three images and two other files; it is in the current folder."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in [("blue", (0, 0, 255)), ("green", (0, 255, 0)), ("red", (255, 0, 0))]:
        Image.new("RGB", (40, 40), colour).save(folder / f"{name}.png")
    (folder / "notes.txt").write_bytes(NO_IMAGE)
    (folder / "empty.png").touch()
    monkeypatch.chdir(tmp_path)
    return folder


LABELS = {"photos/blue.png": "Buzgulu", "photos/green.png": "Ala_Idris", "photos/red.png": "Ak"}
ERRORS = {"photos/empty.png": "no_image", "photos/notes.txt": "unsupported_format"}


def predict(*arguments: object, **variables: str):
    return CliRunner().invoke(vinegrape, ["predict", *map(str, arguments)], env=variables)


def rows(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_an_archive_in_process_classifies_files_and_folders(tiny_archive, photos):
    result = run("predict", "photos", "photos/red.png", "--archive", tiny_archive, "--format", "jsonl")
    assert result.returncode == 1
    assert result.stderr.endswith("3 classified, 2 failed\n")
    found = rows(result.stdout)
    assert [row["path"] for row in found] == sorted([*LABELS, *ERRORS])
    assert {row["path"]: row["label"] for row in found if "label" in row} == LABELS
    assert {row["path"]: row["error"]["type"] for row in found if "error" in row} == ERRORS
    result = run("predict", "photos/red.png", "--archive", tiny_archive)
    assert result.returncode == 0
    assert result.stdout == "photos/red.png  Ak          Ak 0.750, Dimnit 0.150, Nazli 0.100\n"


def changed(archive, folder, name: str, old: bytes = b"", new: bytes = b""):
    """A copy of an archive in which one file has other bytes, or none."""
    path = folder / "changed.mar"
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for file in source.namelist():
            data = source.read(file)
            if file == name:
                assert old in data
                data = data.replace(old, new) if old else b""
            target.writestr(file, data)
    return path


def test_the_archives_own_handler_is_used(tiny_archive, photos, tmp_path):
    """As by a server: an archive may be older than the installed code."""
    other = changed(tiny_archive, tmp_path, "vinegrape_handler/answer.py", b"_DECIMALS = 6", b"_DECIMALS = 1")
    (row,) = rows(run("predict", "photos/red.png", "--archive", other, "--format", "jsonl").stdout)
    assert row["probability"] == 0.8


def test_an_archive_that_cannot_be_used(tiny_archive, photos, tmp_path):
    assert "There is no archive" in error_line(run("predict", "photos", "--archive", "none.mar"))
    result = run("predict", "photos", "--archive", changed(tiny_archive, tmp_path, "model.int8.onnx"))
    assert result.returncode == 1
    assert "worker cannot start" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("vinegrape: A process that classifies")


@pytest.mark.live
@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_gives_the_same_rows_as_the_archive(tiny_server, tiny_archive, photos, scheme):
    port = tiny_server.rest_port if scheme == "http" else tiny_server.grpc_port
    in_process = run("predict", "photos", "--archive", tiny_archive, "--format", "csv")
    served = run("predict", "photos", "--server", f"{scheme}://127.0.0.1:{port}", "--format", "csv")
    assert (served.returncode, served.stdout) == (1, in_process.stdout)
    assert [row["path"] for row in csv.DictReader(served.stdout.splitlines())] == sorted([*LABELS, *ERRORS])


def test_a_thousand_images_with_bounded_requests(tmp_path):
    for number in range(1000):
        (tmp_path / f"{number:04}.png").write_bytes(b"image")
    with stand_in.stand_in(stand_in.correct) as server:
        result = predict(tmp_path, "--server", server.url, "--concurrency", 4, "--output", tmp_path / "rows.csv")
        assert (result.exit_code, server.requests) == (0, 1000)
        assert server.most_in_flight <= 4
    with (tmp_path / "rows.csv").open(newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert paths == [str(tmp_path / f"{number:04}.png") for number in range(1000)]


def failing(code: int, type_: str) -> stand_in.Responder:
    return lambda: stand_in.Response(code, {"error": {"code": code, "type": type_, "message": "the reason"}})


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_run_is_continued(photos, suffix):
    arguments = ["photos", "--concurrency", 1, "--output", f"results.{suffix}", "--server"]
    responses = [
        stand_in.correct,
        failing(422, "broken_image"),
        failing(504, "deadline_exceeded"),
        failing(401, "unauthorized"),
    ]
    with stand_in.stand_in(stand_in.in_turn(*responses)) as server:
        first = predict(*arguments, server.url)
    assert first.exit_code == 1
    assert "the reason" in first.output
    with stand_in.stand_in(stand_in.correct) as server:
        second = predict(*arguments, server.url)
        assert (second.exit_code, server.requests) == (0, 3)  # without blue.png and empty.png
        assert "3 classified, 0 failed, 2 skipped" in second.output
        third = predict(*arguments, server.url)
        assert (third.exit_code, server.requests) == (0, 3)
    text = (photos.parent / f"results.{suffix}").read_text()
    assert all(text.count(path) == 1 for path in [*LABELS, *ERRORS])


def test_the_key_of_the_variable_is_sent(photos):
    with stand_in.stand_in(stand_in.correct) as server:
        assert predict("photos", "--server", server.url, VINEGRAPE_API_KEY="orchard-key").exit_code == 0
        assert {headers["x-api-key"] for headers in server.headers} == {"orchard-key"}
        predict("photos", "--server", server.url, "--api-key", "other", VINEGRAPE_API_KEY="orchard-key")
        assert server.headers[-1]["x-api-key"] == "other"


def test_a_server_that_does_not_run_is_one_error(photos):
    result = predict("photos", "--server", "http://127.0.0.1:1", "--timeout-s", "0.2", "--output", "results.csv")
    assert result.exit_code == 1
    assert result.output.count("Error: ") == 1
    assert "No response from http://127.0.0.1:1" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument"),
        (["none.png"], "does not exist"),
        (["photos", "--server", "127.0.0.1:8080"], "it must be of the form http://HOST:PORT"),
        (["photos", "--server", "http://127.0.0.1", "--ca-file", "photos/notes.txt"], "ca_file is for https"),
        (["photos", "--output", "rows.txt"], "must be csv or jsonl"),
        (["photos", "--output", "rows.csv", "--format", "table"], "must be csv or jsonl"),
        (["photos", "--output", "photos/notes.txt", "--format", "csv"], "left as it is"),
        (["photos", "--concurrency", "0"], "0 is not in the range"),
        (["photos", "--server", "http://127.0.0.1", "--timeout-s", "0"], "must be more than 0"),
    ],
)
def test_wrong_usage(photos, arguments, message):
    result = predict(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert (photos / "notes.txt").read_bytes() == NO_IMAGE


def test_the_output_in_the_folder_is_not_an_image(photos):
    with stand_in.stand_in(stand_in.correct) as server:
        for _ in range(2):
            predict("photos", "--server", server.url, "--output", "photos/rows.csv")
        assert server.requests == 5
