import ast
import http
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support import tiny_archive as tiny
from tests.support.frontend import Response, batch, body_batch, connected, load_message, wire_request
from vinegrape_handler.answer import CONTENT_TYPE, encode
from vinegrape_handler.contract import ERROR_HEADER, START_FAILED
from vinegrape_handler.errors import InferenceFailed, TooLarge, error_body
from vinegrape_handler.metadata import SELF_CHECK_FOLDER, Metadata
from vinegrape_server.torchserve import configuration
from vinegrape_server.worker import main

LOADED = (200, "Model loaded", [])

# Responds with the length of each body. It fails on `raise` and `exhaust`, and returns no response to `lose`. It writes
# to standard error in every way that a library can.
COUNTING_ENTRY = """
import logging
import os
import warnings

class CountingHandler:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        bodies = [row["body"] for row in data]
        if b"raise" in bodies:
            raise ValueError("a failing handler")
        if b"exhaust" in bodies:
            raise MemoryError("a failing handler")
        if b"noise" in bodies:
            os.write(2, b"noise of a C library\\n")
            warnings.warn("noise of a Python library")
            logging.getLogger("PIL").error("noise of a log")
        for index, body in enumerate(bodies):
            context.set_response_content_type(index, "text/plain")
            context.set_response_header(index, "X-Body", body[:5].decode())
            if body == b"":
                context.set_response_status(400, "Bad Request", index)
        return [b"%d" % len(body) for body in bodies if body != b"lose"]
"""

# Responds with everything that it receives
ECHOING_ENTRY = """
class EchoingHandler:
    def initialize(self, context):
        self.properties = context.system_properties

    def handle(self, data, context):
        headers = [context.get_all_request_header(index) for index in range(len(data))]
        return [repr([self.properties, *pair]).encode() for pair in zip(data, headers)]
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """The folder of a model with the counting handler."""
    (tmp_path / "entry.py").write_text(COUNTING_ENTRY)
    return tmp_path


@pytest.fixture
def frontend(folder):
    with connected(folder) as frontend:
        assert frontend.send(load_message(folder)) == LOADED
        yield frontend


def response(index: int, received: bytes, body: bytes, status=200, phrase=b"") -> Response:
    return Response(str(index).encode(), b"text/plain", status, phrase, {b"X-Body": received}, body)


# Batches


def test_one_failed_request_does_not_change_its_neighbours(frontend):
    assert frontend.send(body_batch(b"12345", b"", b"123")) == (
        200,
        "Prediction success",
        [response(0, b"12345", b"5"), response(1, b"", b"0", 400, b"Bad Request"), response(2, b"123", b"3")],
    )


def test_bodies_may_be_larger_than_the_buffer(frontend):
    sizes = [1, 10_000_000, 3, 200_000, 131_072]
    _, _, responses = frontend.send(body_batch(*map(bytes, sizes)))
    assert [int(response.body) for response in responses] == sizes


def test_a_message_may_arrive_byte_by_byte(frontend):
    message = body_batch(b"1234", b"12")
    for byte in message[:-1]:
        frontend.connection.sendall(bytes([byte]))
    assert frontend.send(message[-1:])[2] == [response(0, b"1234", b"4"), response(1, b"12", b"2")]


def test_the_handler_receives_inputs_headers_and_properties(tmp_path):
    (tmp_path / "entry.py").write_text(ECHOING_ENTRY)
    rest = wire_request(b"a", {"body": ("image/png", b"\x89PNG")}, {"Accept": "*/*", "X-Größe": "ä"})
    form = wire_request(b"b", {"image": ("image/png", b"1"), "note": ("text/plain", b"2")}, {"note": "a header"})
    grpc = wire_request(b"c", {"data": ("", b"3")})
    with connected(tmp_path) as frontend:
        frontend.send(load_message(tmp_path, gpu=1))
        _, _, responses = frontend.send(batch(rest, form, grpc))
    properties = {"model_dir": str(tmp_path), "gpu_id": 1, "batch_size": 8}
    assert [ast.literal_eval(response.body.decode()) for response in responses] == [
        [properties, {"body": b"\x89PNG"}, {"body": {"content-type": "image/png"}, "Accept": "*/*", "X-Größe": "ä"}],
        [properties, {"image": b"1", "note": b"2"}, {"image": {"content-type": "image/png"}, "note": "a header"}],
        [properties, {"data": b"3"}, {"data": {"content-type": ""}}],
    ]


def test_without_a_gpu_its_number_is_none(tmp_path):
    (tmp_path / "entry.py").write_text(ECHOING_ENTRY)
    with connected(tmp_path) as frontend:
        frontend.send(load_message(tmp_path))
        _, _, (echo,) = frontend.send(body_batch(b""))
    assert ast.literal_eval(echo.body.decode())[0]["gpu_id"] is None


# A handler that fails


@pytest.mark.parametrize(
    ("body", "error", "logged"),
    [
        (b"raise", InferenceFailed, "ValueError: a failing handler"),
        (b"lose", InferenceFailed, "ValueError: zip() argument"),
        (b"exhaust", TooLarge, "MemoryError: a failing handler"),
    ],
)
def test_an_exception_fails_its_batch_and_not_the_next(frontend, body, error, logged):
    """The responses are like those of the handler, which the worker cannot import."""
    code, _, responses = frontend.send(body_batch(b"1", body, b"1"))
    assert code == 200
    assert [response.id for response in responses] == [b"0", b"1", b"2"]
    phrase = http.HTTPStatus(error.status).phrase.encode()
    for item in responses:
        assert item[1:4] == (CONTENT_TYPE.encode(), error.status, phrase)
        assert item.headers == {ERROR_HEADER.encode(): error.type.encode()}
        message = json.loads(item.body)["error"]["message"]
        assert item.body == encode(error_body(error(message)))
    assert frontend.send(body_batch(b"12"))[2] == [response(0, b"12", b"2")]
    exit_code, log = frontend.end()
    assert exit_code == 0
    (line,) = log.splitlines()
    assert line.startswith("Traceback")
    assert logged in line


def test_libraries_cannot_write_into_the_log(frontend):
    for _ in range(2):
        assert frontend.send(body_batch(b"noise"))[2] == [response(0, b"noise", b"5")]
    assert frontend.end() == (0, "")


def test_what_libraries_write_during_the_load_is_logged(tmp_path):
    (tmp_path / "entry.py").write_text("import os\nos.write(2, b'a reason')\n" + COUNTING_ENTRY)
    with connected(tmp_path) as frontend:
        assert frontend.send(load_message(tmp_path)) == LOADED
        assert frontend.end() == (0, "a reason")


# Start and end


@pytest.mark.parametrize(
    "sent", [b"", body_batch(bytes(300_000))[:-100_000]], ids=["between batches", "inside a batch"]
)
def test_the_worker_ends_without_an_error_when_the_frontend_disconnects(frontend, sent):
    frontend.connection.sendall(sent)
    assert frontend.end() == (0, "")


def test_the_worker_ends_without_an_error_before_it_has_a_model(tmp_path):
    with connected(tmp_path) as frontend:
        assert frontend.end() == (0, "")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ImportError('no such thing')", "ImportError: no such thing"),
        ("class A: pass\nclass B: pass", "ValueError: too many values"),
        ("class A:\n def initialize(self, context): raise ConnectionError('none')", "ConnectionError: none"),
    ],
)
def test_the_frontend_receives_the_reason_why_a_model_cannot_be_loaded(tmp_path, code, reason):
    (tmp_path / "entry.py").write_text(code)
    with connected(tmp_path) as frontend:
        status, message, _ = frontend.send(load_message(tmp_path))
        assert status == 500
        assert message.startswith(reason)
        code, error = frontend.end()
        assert code == 1
        assert not error or error.startswith(f"{START_FAILED}its handler cannot be imported: {reason}")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--sock-type", "tcp", "--port", "9000"], "argument --sock-type: invalid choice: 'tcp'"),
        (["--sock-type", "unix", "--sock-name", "none", "--async"], "unrecognized arguments: --async"),
    ],
)
def test_unsupported_arguments_are_refused(arguments, error):
    command = [sys.executable, main.__file__, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env={"PYTHONSAFEPATH": "1"}, check=False)
    assert result.returncode == 2
    assert error in result.stderr


def test_an_unknown_command_ends_the_worker(frontend):
    frontend.connection.sendall(b"X")
    frontend.process.wait(60)
    code, log = frontend.end()
    assert code == 1
    assert log.endswith("TorchServe sent the command b'X' instead of b'I'.\n")


# Archives


def imported_from(folder: Path, module: str, **variables: str) -> str:
    """The file of a module that a model's entry imports."""
    (folder / "entry.py").write_text(f"""
import {module}

class FileHandler:
    def initialize(self, context):
        pass

    def handle(self, data, context):
        return [{module}.__file__.encode()]
""")
    with connected(folder, **variables) as frontend:
        frontend.send(load_message(folder))
        _, _, (file,) = frontend.send(body_batch(b""))
    return file.body.decode()


@pytest.mark.parametrize("inherited", ["", str(ROOT / "handler")])
def test_the_archives_code_takes_precedence_over_installed_code(tmp_path, inherited):
    (tmp_path / "vinegrape_handler").mkdir()
    (tmp_path / "vinegrape_handler" / "__init__.py").touch()
    path = os.pathsep.join([inherited, str(tmp_path)])  # TorchServe adds the model's folder at the end
    assert imported_from(tmp_path, "vinegrape_handler", PYTHONPATH=path).startswith(str(tmp_path))


def test_the_workers_folder_is_not_on_the_import_path(tmp_path):
    """By default Python adds a script's folder, and `protocol` would be the worker's own module."""
    (tmp_path / "main.py").touch()
    assert imported_from(tmp_path, "main") == str(tmp_path / "main.py")
    (tmp_path / "entry.py").write_text("import protocol")
    with connected(tmp_path) as frontend:
        assert frontend.send(load_message(tmp_path))[1] == "ModuleNotFoundError: No module named 'protocol'"


# Responds as the archive's own entry does, and adds the names of the imported modules
MODULES_ENTRY = """
import json, sys
from vinegrape_handler.handler import Handler

class ModulesHandler(Handler):
    def handle(self, data, context):
        bodies = super().handle(data, context)
        return [json.dumps([json.loads(body), sorted(sys.modules)]).encode() for body in bodies]
"""


@pytest.mark.parametrize(
    ("archive", "backend", "imported", "not_imported"),
    [
        ("tiny_archive", "onnx_int8", "onnxruntime", "torch"),
        pytest.param("tiny_torch_archive", "torchscript", "torch", "onnxruntime", marks=pytest.mark.trains),
    ],
)
def test_a_worker_imports_what_its_backend_needs(archive, backend, imported, not_imported, tmp_path, request):
    with zipfile.ZipFile(request.getfixturevalue(archive)) as opened:
        opened.extractall(tmp_path)
    (tmp_path / "entry.py").write_text(MODULES_ENTRY)
    (tmp_path / configuration.METRICS_FOLDER).mkdir()
    image = (tmp_path / SELF_CHECK_FOLDER / "0.png").read_bytes()
    with connected(tmp_path, VINEGRAPE_BACKEND=backend) as frontend:
        assert frontend.send(load_message(tmp_path)) == LOADED
        _, _, (result,) = frontend.send(body_batch(image))
    prediction, modules = json.loads(result.body)
    assert prediction["model"]["version"] == Metadata.read(tmp_path).version
    assert list(prediction["probabilities"].values()) == pytest.approx(tiny.probabilities(tiny.RED), abs=1e-4)
    assert imported in modules
    assert {not_imported, "ts", "multipart"}.isdisjoint(modules)
