"""`vinegrape fuzz` with few images; faults are put into `decode` to see that they are found."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.images import encode, gradient
from vinegrape_handler.images.decode import Limits
from vinegrape_loadtests.fuzz import checks
from vinegrape_loadtests.fuzz.checks import Violation, check_destroyed, outcome
from vinegrape_loadtests.fuzz.command import fuzz
from vinegrape_loadtests.fuzz.decode_run import fuzz_decode
from vinegrape_loadtests.fuzz.failures import Failures
from vinegrape_loadtests.fuzz.state import State

LIMITS = Limits(100_000, 100_000)
IMAGE = encode(gradient(), "PNG")


def test_changed_images_are_decoded_and_counted(tmp_path):
    done = []
    run = fuzz_decode(60, seed=1, processes=2, pixels=100_000, output=tmp_path, progress=done.append)
    assert run.images == run.counts.total() >= 60
    assert run.counts.keys() <= {200, 400, 413, 415, 422}
    assert not run.problems
    assert done[-1] >= 60


FAULTS = {
    "crash": "import os; os.abort()",
    "hang": "import itertools; [None for _ in itertools.count()]",
    "memory": "import time; kept = bytes([1]) * 2**31; time.sleep(60)",
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_process_that_fails_is_found_with_its_image(kind, tmp_path, monkeypatch):
    """A module of the child's start puts the fault into `decode` for images of 100 bytes or less."""
    (tmp_path / "sitecustomize.py").write_text(
        "from vinegrape_handler.images import decode as module\n"
        "def fail(data, *_):\n"
        f"    {FAULTS[kind]}\n"
        "whole = module.decode\n"
        "module.decode = lambda data, *more: fail(data) if len(data) <= 100 else whole(data, *more)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    if kind == "hang":
        monkeypatch.setattr("vinegrape_loadtests.fuzz.decode_run._MAX_CPU_S", 0.5)
    monkeypatch.setattr("vinegrape_loadtests.fuzz.decode_run._MOST_RESTARTS", 1)
    run = fuzz_decode(30, seed=1, processes=1, pixels=100_000, output=tmp_path / "out", progress=lambda _: None)
    assert run.problems[kind]
    path, problem = Failures(tmp_path / "out" / "failures").list()[0]
    assert problem.startswith(kind)
    assert len(path.read_bytes()) <= 100


def test_the_state_survives_a_crash(tmp_path):
    code = "import os, sys; from vinegrape_loadtests.fuzz.state import State; from pathlib import Path\n"
    code += "s = State(Path(sys.argv[1])); s.begin(b'one'); s.end(200); s.begin(b'two'); os.abort()"
    subprocess.run([sys.executable, "-c", code, tmp_path / "state"], check=False)
    state = State(tmp_path / "state")
    assert (state.ended, state.present, state.counts[200]) == (1, (2, b"two"), 1)
    state.skip_present()
    assert (state.ended, state.present) == (2, None)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("bad"), r"ValueError in test_command.py, line \d+: bad"),
        (SystemError("worse"), r"SystemError in test_command.py, line \d+: worse"),
    ],
)
def test_another_exception_is_a_violation(error, words, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(checks, "decode", fail)
    with pytest.raises(Violation, match=words):
        outcome(IMAGE, LIMITS)


def test_an_illegal_image_is_a_violation(monkeypatch):
    monkeypatch.setattr(checks, "decode", lambda *_: gradient().convert("L"))
    with pytest.raises(Violation, match="mode L and 37 x 23 pixels"):
        outcome(IMAGE, LIMITS)
    monkeypatch.setattr(checks, "decode", lambda *_: gradient(400, 300))
    with pytest.raises(Violation, match="mode RGB and 400 x 300 pixels"):
        outcome(IMAGE, LIMITS)


def test_an_image_that_is_read_in_spite_of_its_header_is_a_violation(monkeypatch):
    monkeypatch.setattr(checks, "decode", lambda *_: gradient())
    with pytest.raises(Violation, match="status 200 although the header is destroyed"):
        check_destroyed(IMAGE, LIMITS)


def test_files_are_tried_again(tmp_path):
    (tmp_path / "a.bin").write_bytes(IMAGE)
    (tmp_path / "b.bin").write_bytes(IMAGE[:30])
    result = CliRunner().invoke(fuzz, [str(tmp_path / "a.bin"), str(tmp_path / "b.bin")])
    assert result.exit_code == 0
    assert result.stdout == f"{tmp_path}/a.bin: status 200\n{tmp_path}/b.bin: status 422\n"


def test_a_saved_image_says_how_to_try_it_again(tmp_path):
    path = Failures(tmp_path / "failures").save(b"data", "hang: too long")
    assert path.read_bytes() == b"data"
    assert path.with_suffix(".txt").read_text() == f"hang: too long\n\nTry it again: vinegrape fuzz {path}\n"


@pytest.mark.live
@pytest.mark.xdist_group("timing")
def test_a_live_server_is_fuzzed(tiny_archive, tmp_path):
    output = tmp_path / "out"
    options = [
        "--images",
        "0",
        "--requests",
        "64",
        "--seed",
        "5",
        "--archive",
        str(tiny_archive),
        "--output",
        str(output),
    ]
    result = CliRunner().invoke(fuzz, options)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Seed: 5\n")
    assert "rest 4" in result.stdout
    assert "grpc 4" in result.stdout
    assert result.stdout.endswith("Nothing was wrong.\n")
    assert not list(Path(output).glob("failures/*"))
