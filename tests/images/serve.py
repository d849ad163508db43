"""Asks the image of Dockerfile.serve; `make images` builds it and runs this, pytest by itself does not."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.images import image
from tests.support.repack import read_self_check
from tests.support.server import Live, listens, wait_until
from vinegrape_loadtests.local.server import free_ports

IMAGE = os.environ["SERVE_IMAGE"]
READ_ONLY = ("--read-only",)
LIMIT_MB = 420  # above the base


@contextlib.contextmanager
def serving(log: Path, ports: dict[str, int]) -> Iterator[Live]:
    """The image as a container, with ports of ours, as of now; its process is asked to end with the block.

    The port of REST is given as Cloud Run gives it, the others by name.
    """
    named = {f"VINEGRAPE_{name.upper()}": port for name, port in ports.items() if name != "rest_port"}
    options = (*READ_ONLY, *image.variables(PORT=ports["rest_port"], **named))
    with log.open("w") as output:
        process = subprocess.Popen(image.command(IMAGE, options=options), stdout=output, stderr=output, text=True)
    live = Live(process, ports, log)
    try:
        yield live
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def answers(live: Live) -> bool:
    assert live.process.poll() is None, live.log.read_text()
    return listens("127.0.0.1", live.ports["rest_port"]) and live.post(b"").status_code == 400


def is_ready(live: Live) -> bool:
    assert live.process.poll() is None, live.log.read_text()
    return listens("127.0.0.1", live.ports["operations_port"]) and live.operations("/readyz").status_code == 200


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("serve") / "log", free_ports()) as live:
        wait_until(lambda: is_ready(live), seconds=120)
        yield live


def health(live: Live) -> subprocess.CompletedProcess[str]:
    """The image's HEALTHCHECK, from a second container."""
    options = (*READ_ONLY, *image.variables(VINEGRAPE_OPERATIONS_PORT=live.ports["operations_port"]))
    return image.program(IMAGE, "vinegrape", "ready", options=options)


def test_from_start_to_stop(tmp_path, leaf, capsys):
    """It answers, then ends as asked, with 0, and all of it."""
    began = time.monotonic()
    with serving(tmp_path / "log", free_ports()) as live:
        wait_until(lambda: answers(live), seconds=120)
        assert live.post(leaf).json()["label"] == "Ak"
        seconds = time.monotonic() - began
        wait_until(lambda: is_ready(live))
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(60) == 0
        assert not any(listens("127.0.0.1", port) for port in live.ports.values())
        assert "Traceback" not in live.log.read_text()
    with capsys.disabled():
        print(f"\n{IMAGE}: first right answer {seconds:.1f} s after its start")  # noqa: T201


def test_the_archives_pictures_are_answered_right(server):
    metadata, pictures = read_self_check(ROOT / "model_store" / "vinegrape.mar")
    for picture, check in zip(pictures, metadata.self_check, strict=True):
        answer = server.post(picture).json()
        expected = check.probabilities["onnx_int8"]
        np.testing.assert_allclose(list(answer["probabilities"].values()), expected, atol=1e-3)
        assert answer["model"]["version"] == metadata.version
        assert json.loads(server.call(picture)) == answer


def test_probes_and_metrics(server, leaf):
    assert server.operations("/livez").status_code == 200
    before = server.metrics().get(("vinegrape_requests_total", "", "200", "rest"), 0)
    assert server.post(leaf).status_code == 200
    assert server.metrics()["vinegrape_requests_total", "", "200", "rest"] == before + 1


def test_health_check(server):
    assert health(server).returncode == 0
    nobody = health(Live(server.process, free_ports(), server.log))
    assert nobody.returncode == 1
    assert nobody.stderr.startswith("vinegrape: Nobody answers on port"), nobody.stderr


def test_management_alone_stays_in_the_container(server):
    """127.0.0.2 stands here for every address that is not 127.0.0.1."""
    assert {name: listens("127.0.0.2", port) for name, port in server.ports.items()} == {
        "rest_port": True, "grpc_port": True, "operations_port": True,
        "metrics_port": False, "management_port": False, "grpc_management_port": False,
    }  # fmt: skip


def test_nobody_is_root_and_nothing_is_there_that_is_not_needed():
    assert image.program(IMAGE, "id", "-u").stdout.strip() == "10001"
    code = "import importlib.util as u; print([n for n in ('pip', 'torch', 'lightning', 'tests') if u.find_spec(n)])"
    assert image.program(IMAGE, "python", "-c", code).stdout.strip() == "[]"
    assert image.program(IMAGE, "find", "/srv", "-type", "f").stdout.split() == ["/srv/model_store/vinegrape.mar"]


def test_size(capsys):
    """Packages, code, archive, and the bytecode of the base's standard library."""
    added = ("/opt/vinegrape", "/srv", *bytecode())
    result = image.program(IMAGE, "du", "-s", "--block-size=1000000", "--total", *added)
    total = int(result.stdout.splitlines()[-1].split()[0])
    assert 100 < total < LIMIT_MB
    with capsys.disabled():
        print(f"\n{IMAGE}: {total} MB of packages, code, archive and bytecode, among them")  # noqa: T201
        print("\n".join(biggest()))  # noqa: T201


def biggest() -> list[str]:
    """The largest packages: megabytes and folder."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    folder = image.program(IMAGE, "python", "-c", code).stdout.strip()
    result = image.program(IMAGE, "du", "--block-size=1000000", "--max-depth=1", folder)
    return sorted(result.stdout.splitlines(), key=lambda line: int(line.split()[0]), reverse=True)[1:8]


def bytecode() -> list[str]:
    """The folders of compiled modules of the image's standard library."""
    code = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    folder = image.program(IMAGE, "python", "-c", code).stdout.strip()
    return image.program(IMAGE, "find", folder, "-name", "__pycache__", "-prune").stdout.split()
