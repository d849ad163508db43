import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.frontend import Answer, batch, connected, load_message, pictures, request
from vinegrape_handler.metadata import SELF_CHECK_FOLDER, Metadata
from vinegrape_server.torchserve import configuration
from vinegrape_server.worker import main

LOADED = (200, "Model loaded", [])

# Answers with the length of the body, and fails as it is told
ENTRY = """
class Counts:
    def initialize(self, context):
        self.gpu = context.system_properties["gpu_id"]

    def handle(self, data, context):
        bodies = [row["body"] for row in data]
        if b"raise" in bodies:
            raise ValueError("asked for")
        if b"exhaust" in bodies:
            raise MemoryError("asked for")
        for index, body in enumerate(bodies):
            context.set_response_content_type(index, "text/plain")
            if body == b"":
                context.set_response_status(400, "Bad Request", index)
        return [b"%d" % len(body) for body in bodies if body != b"lose"]
"""

TELLS = """
class Tells:
    def initialize(self, context):
        self.properties = context.system_properties

    def handle(self, data, context):
        headers = [context.get_all_request_header(index) for index in range(len(data))]
        return [repr([self.properties, row, each]).encode() for row, each in zip(data, headers)]
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model's, whose handler counts."""
    (tmp_path / "entry.py").write_text(ENTRY)
    return tmp_path


@pytest.fixture
def frontend(folder):
    with connected(folder) as made:
        assert made.ask(load_message(folder)) == LOADED
        yield made


def answer(place: int, body: bytes, status=200, phrase=b"") -> Answer:
    return Answer(str(place).encode(), b"text/plain", status, phrase, body)


def failed(code: int, requests: int) -> list[Answer]:
    return [Answer(str(place).encode(), b"", code, b"", b"error") for place in range(requests)]


# Batches


def test_a_batch_of_which_one_is_an_error(frontend):
    assert frontend.ask(pictures(b"12345", b"", b"123")) == (
        200,
        "Prediction success",
        [answer(0, b"5"), answer(1, b"0", 400, b"Bad Request"), answer(2, b"3")],
    )


def test_bodies_larger_than_any_buffer_among_small_ones(frontend):
    sizes = [1, 10_000_000, 3, 200_000, 131_072]
    _, _, answers = frontend.ask(pictures(*map(bytes, sizes)))
    assert [int(each.body) for each in answers] == sizes


def test_a_message_in_pieces_of_a_byte(frontend):
    message = pictures(b"1234", b"12")
    for byte in message[:-1]:
        frontend.connection.sendall(bytes([byte]))
    assert frontend.ask(message[-1:])[2] == [answer(0, b"4"), answer(1, b"2")]


def test_what_the_handler_is_given(tmp_path):
    (tmp_path / "entry.py").write_text(TELLS)
    rest = request(b"a", {"body": ("image/png", b"\x89PNG")}, {"Accept": "*/*", "X-Größe": "ä"})
    form = request(b"b", {"image": ("image/png", b"1"), "note": ("text/plain", b"2")}, {"note": "a header"})
    grpc = request(b"c", {"data": ("", b"3")})
    with connected(tmp_path) as frontend:
        frontend.ask(load_message(tmp_path, gpu=1))
        _, _, answers = frontend.ask(batch(rest, form, grpc))
    properties = {"model_dir": str(tmp_path), "gpu_id": 1}
    assert [eval(each.body) for each in answers] == [
        [properties, {"body": b"\x89PNG"}, {"body": {"content-type": "image/png"}, "Accept": "*/*", "X-Größe": "ä"}],
        [properties, {"image": b"1", "note": b"2"}, {"image": {"content-type": "image/png"}, "note": "a header"}],
        [properties, {"data": b"3"}, {"data": {"content-type": ""}}],
    ]


def test_no_gpu(tmp_path):
    (tmp_path / "entry.py").write_text(TELLS)
    with connected(tmp_path) as frontend:
        frontend.ask(load_message(tmp_path))
        _, _, ((_, _, _, _, body),) = frontend.ask(pictures(b""))
    assert eval(body)[0]["gpu_id"] is None


# What the handler does wrong


@pytest.mark.parametrize(
    ("told", "code", "said", "logged"),
    [
        (b"raise", 503, "Prediction failed", "ValueError: asked for"),
        (b"lose", 503, "Prediction failed", "ValueError: zip() argument"),
        (b"exhaust", 507, "Out of resources", "MemoryError: asked for"),
    ],
)
def test_the_whole_batch_fails_and_the_next_does_not(frontend, told, code, said, logged):
    assert frontend.ask(pictures(b"1", told, b"1")) == (code, said, failed(code, 3))
    assert frontend.ask(pictures(b"12")) == (200, "Prediction success", [answer(0, b"2")])
    exit_code, errors = frontend.end()
    assert exit_code == 0
    assert errors.count(logged) == errors.count("Traceback") == 1


# The end, and the beginning


@pytest.mark.parametrize("sent", [b"", pictures(bytes(300_000))[:-100_000]])
def test_a_frontend_that_disconnects(frontend, sent):
    frontend.connection.sendall(sent)
    assert frontend.end() == (0, "")


def test_a_frontend_that_disconnects_before_it_has_named_a_model(tmp_path):
    with connected(tmp_path) as frontend:
        assert frontend.end() == (0, "")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("raise ImportError('no such thing')", "ImportError: no such thing"),
        ("class A: pass\nclass B: pass", "ValueError: too many values"),
        ("class A:\n def initialize(self, context): raise ConnectionError('none')", "ConnectionError: none"),
    ],
)
def test_a_model_that_cannot_be_loaded(tmp_path, code, said):
    (tmp_path / "entry.py").write_text(code)
    with connected(tmp_path) as frontend:
        answered, message, _ = frontend.ask(load_message(tmp_path))
        assert answered == 500
        assert message.startswith(said)
        assert frontend.end() == (1, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sock-type", "tcp", "--port", "9000"], "argument --sock-type: invalid choice: 'tcp'"),
        (["--sock-type", "unix", "--sock-name", "none", "--async"], "unrecognized arguments: --async"),
    ],
)
def test_what_it_cannot_do(arguments, said):
    command = [sys.executable, main.__file__, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env={"PYTHONSAFEPATH": "1"}, check=False)
    assert result.returncode == 2
    assert said in result.stderr


def test_an_unknown_command(frontend):
    frontend.connection.sendall(b"X")
    frontend.process.wait(60)
    code, errors = frontend.end()
    assert code == 1
    assert errors.endswith("TorchServe sent the command b'X' where b'I' was expected.\n")


# Archives


def imported_from(folder: Path, module: str, **environment: str) -> str:
    """The file of a module that a model's entry imports."""
    (folder / "entry.py").write_text(f"""
import {module}

class Tells:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        return [{module}.__file__.encode()]
""")
    with connected(folder, **environment) as frontend:
        frontend.ask(load_message(folder))
        _, _, (told,) = frontend.ask(pictures(b""))
    return told.body.decode()


@pytest.mark.parametrize("inherited", ["", str(ROOT / "handler")])
def test_the_archives_code_goes_before_what_is_installed(tmp_path, inherited):
    (tmp_path / "vinegrape_handler").mkdir()
    (tmp_path / "vinegrape_handler" / "__init__.py").touch()
    path = os.pathsep.join([inherited, str(tmp_path)])  # TorchServe adds the model's folder at the end
    assert imported_from(tmp_path, "vinegrape_handler", PYTHONPATH=path).startswith(str(tmp_path))


def test_the_servers_modules_are_in_nobodys_way(tmp_path):
    """Python would put a script's folder on its path: `settings` and `metrics` would be this server's."""
    (tmp_path / "metrics.py").touch()
    assert imported_from(tmp_path, "metrics") == str(tmp_path / "metrics.py")
    (tmp_path / "entry.py").write_text("import settings")
    with connected(tmp_path) as frontend:
        assert frontend.ask(load_message(tmp_path))[1] == "ModuleNotFoundError: No module named 'settings'"


# Answers as the archive's own entry does, and says what was imported for it
TELLS_MODULES = """
import json, sys
from vinegrape_handler.handler import Handler

class Tells(Handler):
    def handle(self, data, context):
        answers = super().handle(data, context)
        return [json.dumps([json.loads(each), sorted(sys.modules)]).encode() for each in answers]
"""


@pytest.mark.parametrize(
    ("backend", "runs", "spares"), [("onnx_int8", "onnxruntime", "torch"), ("torchscript", "torch", "onnxruntime")]
)
def test_a_worker_imports_what_its_backend_needs(small_archive, tmp_path, backend, runs, spares):
    with zipfile.ZipFile(small_archive) as archive:
        archive.extractall(tmp_path)
    (tmp_path / "entry.py").write_text(TELLS_MODULES)
    (tmp_path / configuration.METRICS).mkdir()
    picture = (tmp_path / SELF_CHECK_FOLDER / "0.png").read_bytes()
    with connected(tmp_path, VINEGRAPE_BACKEND=backend) as frontend:
        assert frontend.ask(load_message(tmp_path)) == LOADED
        _, _, (told,) = frontend.ask(pictures(picture))
    body, modules = json.loads(told.body)
    assert body["model"]["version"] == Metadata.read(tmp_path).version
    assert runs in modules
    assert {spares, "ts"}.isdisjoint(modules)
