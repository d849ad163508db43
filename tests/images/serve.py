"""Dockerfile.serve builds a working image. `make images` runs these tests; pytest alone does not collect them."""

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
# Megabytes of packages, code, archive and compiled modules, without the base image
SIZE_LIMIT_MB = 420


@contextlib.contextmanager
def started(log: Path, ports: dict[str, int]) -> Iterator[Live]:
    """Start a container of the image with these ports, and stop it at the end of the block.

    The variable PORT sets the REST port, as on Cloud Run.
    """
    named = {f"VINEGRAPE_{name.upper()}": port for name, port in ports.items() if name != "rest_port"}
    options = (*READ_ONLY, *image.variables(PORT=ports["rest_port"], **named))
    with log.open("w") as output:
        process = subprocess.Popen(image.command(IMAGE, options=options), stdout=output, stderr=output, text=True)
    try:
        yield Live(process, ports, log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def rest_responds(live: Live) -> bool:
    assert live.process.poll() is None, live.log.read_text()
    return listens("127.0.0.1", live.ports["rest_port"]) and live.post(b"").status_code == 400


def is_ready(live: Live) -> bool:
    assert live.process.poll() is None, live.log.read_text()
    return listens("127.0.0.1", live.ports["operations_port"]) and live.operations("/readyz").status_code == 200


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Live]:
    with started(tmp_path_factory.mktemp("serve") / "log", free_ports()) as live:
        wait_until(lambda: is_ready(live), seconds=120)
        yield live


def run_health_check(operations_port: int) -> subprocess.CompletedProcess[str]:
    """Run the command of the image's HEALTHCHECK, in a second container."""
    options = (*READ_ONLY, *image.variables(VINEGRAPE_OPERATIONS_PORT=operations_port))
    return image.program(IMAGE, "vinegrape", "ready", options=options)


def test_a_container_starts_classifies_and_stops_with_exit_code_0(tmp_path, leaf, capsys):
    begin = time.monotonic()
    with started(tmp_path / "log", free_ports()) as live:
        wait_until(lambda: rest_responds(live), seconds=120)
        assert live.post(leaf).json()["label"] == "Ak"
        seconds = time.monotonic() - begin
        wait_until(lambda: is_ready(live))
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(60) == 0
        assert not any(listens("127.0.0.1", port) for port in live.ports.values())
        assert "Traceback" not in live.log.read_text()
    with capsys.disabled():
        print(f"\n{IMAGE}: first correct response {seconds:.1f} s after the start")  # noqa: T201


def test_the_self_check_images_get_their_probabilities_over_rest_and_grpc(server):
    metadata, images = read_self_check(ROOT / "model_store" / "vinegrape.mar")
    for content, check in zip(images, metadata.self_check, strict=True):
        response = server.post(content).json()
        expected = check.probabilities["onnx_int8"]
        np.testing.assert_allclose(list(response["probabilities"].values()), expected, atol=1e-3)
        assert response["model"]["version"] == metadata.version
        assert json.loads(server.call(content)) == response


def test_probes_and_metrics_respond(server, leaf):
    assert server.operations("/livez").status_code == 200
    before = server.metrics().get(("vinegrape_requests_total", "", "200", "rest"), 0)
    assert server.post(leaf).status_code == 200
    assert server.metrics()["vinegrape_requests_total", "", "200", "rest"] == before + 1


def test_the_health_check_passes_for_a_ready_server(server):
    assert run_health_check(server.ports["operations_port"]).returncode == 0


def test_the_health_check_fails_without_a_server():
    port = free_ports()["operations_port"]
    result = run_health_check(port)
    assert result.returncode == 1
    assert f"port {port}" in result.stderr


def test_only_the_public_ports_are_reachable_from_outside(server):
    """127.0.0.2 stands for all addresses other than 127.0.0.1."""
    assert {name: listens("127.0.0.2", port) for name, port in server.ports.items()} == {
        "rest_port": True, "grpc_port": True, "operations_port": True,
        "metrics_port": False, "management_port": False, "grpc_management_port": False,
    }  # fmt: skip


def test_the_user_is_not_root():
    assert image.program(IMAGE, "id", "-u").stdout.strip() == "10001"


def test_the_image_contains_nothing_that_serving_does_not_need():
    names = ("pip", "torch", "lightning", "tests", "vinegrape_training", "vinegrape_loadtests")
    code = f"import importlib.util; print([name for name in {names} if importlib.util.find_spec(name)])"
    assert image.program(IMAGE, "python", "-c", code).stdout.strip() == "[]"
    assert image.program(IMAGE, "find", "/srv", "-type", "f").stdout.split() == ["/srv/model_store/vinegrape.mar"]


def test_the_image_is_small(capsys):
    added = ("/opt/vinegrape", "/srv", *bytecode_folders())
    result = image.program(IMAGE, "du", "-s", "--block-size=1000000", "--total", *added)
    total = int(result.stdout.splitlines()[-1].split()[0])
    assert 100 < total < SIZE_LIMIT_MB
    with capsys.disabled():
        print(f"\n{IMAGE}: {total} MB of packages, code, archive and compiled modules; the largest packages:")  # noqa: T201
        print("\n".join(largest_packages()))  # noqa: T201


def largest_packages() -> list[str]:
    """The largest packages: megabytes and folder."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    folder = image.program(IMAGE, "python", "-c", code).stdout.strip()
    result = image.program(IMAGE, "du", "--block-size=1000000", "--max-depth=1", folder)
    return sorted(result.stdout.splitlines(), key=lambda line: int(line.split()[0]), reverse=True)[1:8]


def bytecode_folders() -> list[str]:
    """The folders with compiled modules of the standard library."""
    code = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    folder = image.program(IMAGE, "python", "-c", code).stdout.strip()
    return image.program(IMAGE, "find", folder, "-name", "__pycache__", "-prune").stdout.split()
