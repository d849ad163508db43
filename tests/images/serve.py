"""Dockerfile.serve builds a working image. `make images` runs these tests; pytest alone does not collect them."""

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.conftest import ROOT
from tests.images import image
from tests.support.repack import read_self_check
from tests.support.server import Live, listens, wait_until
from vinegrape_loadtests.local.server import free_ports

IMAGE = os.environ["SERVE_IMAGE"]
READ_ONLY = ("--read-only",)
# The settings of the ports that listen in the container
PORTS = ("edge_port", "rest_port", "grpc_port", "operations_port")
# Megabytes of packages, code, archive and compiled modules, without the base image
SIZE_LIMIT_MB = 420


@contextlib.contextmanager
def started(log: Path, ports: dict[str, int], options: tuple[str, ...] = ()) -> Iterator[Live]:
    """Start a container of the image with these ports, and stop it at the end of the block.

    The variable PORT sets the edge's port, as on Cloud Run. REST and gRPC requests of the `Live` server go to the edge.
    """
    named = {f"VINEGRAPE_{name.upper()}": ports[name] for name in PORTS if name != "edge_port"}
    options = (*READ_ONLY, *options, *image.variables(PORT=ports["edge_port"], **named))
    with log.open("w") as output:
        process = subprocess.Popen(image.command(IMAGE, options=options), stdout=output, stderr=output, text=True)
    try:
        yield Live(process, {**ports, "rest_port": ports["edge_port"], "grpc_port": ports["edge_port"]}, log)
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
def ports() -> dict[str, int]:
    """The ports of `server`."""
    return free_ports()


@pytest.fixture(scope="module")
def server(tmp_path_factory, ports) -> Iterator[Live]:
    with started(tmp_path_factory.mktemp("serve") / "log", ports) as live:
        wait_until(lambda: is_ready(live), seconds=120)
        yield live


def run_health_check(operations_port: int) -> subprocess.CompletedProcess[str]:
    """Run the command of the image's HEALTHCHECK, in a second container."""
    options = (*READ_ONLY, *image.variables(VINEGRAPE_OPERATIONS_PORT=operations_port))
    return image.program(IMAGE, "vinegrape", "ready", options=options)


def test_a_container_starts_classifies_and_stops_with_exit_code_0(tmp_path, leaf, capsys):
    begin, ports = time.monotonic(), free_ports()
    with started(tmp_path / "log", ports) as live:
        wait_until(lambda: rest_responds(live), seconds=120)
        assert live.post(leaf).json()["label"] == "Ak"
        seconds = time.monotonic() - begin
        wait_until(lambda: is_ready(live))
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(60) == 0
        assert not any(listens("127.0.0.1", port) for port in ports.values())
        assert "Traceback" not in live.log.read_text()
    with capsys.disabled():
        print(f"\n{IMAGE}: first correct response {seconds:.1f} s after the start")  # noqa: T201


def test_the_self_check_images_get_their_probabilities_over_rest_and_grpc_on_one_port(server):
    assert server.ports["rest_port"] == server.ports["grpc_port"] == server.ports["edge_port"]
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


def test_the_edge_refuses_what_is_not_offered(server):
    response = server.client.get("/models")  # TorchServe's management
    assert (response.status_code, response.json()["error"]["type"]) == (404, "not_found")


def test_only_the_edge_and_the_operations_port_are_reachable_from_outside(server, ports):
    """127.0.0.2 stands for all addresses other than 127.0.0.1."""
    inside = {name for name in PORTS if listens("127.0.0.1", ports[name])}
    outside = {name for name in PORTS if listens("127.0.0.2", ports[name])}
    assert inside == set(PORTS)
    assert outside == {"edge_port", "operations_port"}


def test_api_keys_and_tls_come_from_a_mounted_folder(tmp_path, leaf):
    """With the commands of docs/docker.md, whose files user 10001 must be able to read."""
    secrets = tmp_path / "deploy"
    secrets.mkdir()
    (secrets / "api-keys").write_text("phone-app 0123456789abcdef0123456789abcdef\n")
    create_certificate(secrets)
    files = {"api_keys": "api-keys", "tls_certificate": "tls.crt", "tls_key": "tls.key"}
    variables = image.variables(
        **{f"VINEGRAPE_{name.upper()}": f"/etc/vinegrape/{file}" for name, file in files.items()}
    )
    ports = free_ports()
    with started(tmp_path / "log", ports, ("-v", f"{secrets}:/etc/vinegrape:ro", *variables)) as live:
        wait_until(lambda: is_ready(live), seconds=120)
        url = f"https://localhost:{ports['edge_port']}/predictions/vinegrape"
        trusted = ssl.create_default_context(cafile=secrets / "tls.crt")

        def post(**headers: str) -> int:
            return httpx.post(url, content=leaf, headers=headers, verify=trusted, timeout=60).status_code

        assert post() == 401
        assert post(authorization="Bearer wrong") == 403
        assert post(authorization="Bearer 0123456789abcdef0123456789abcdef") == 200
        assert "0123456789abcdef" not in live.log.read_text()


def create_certificate(folder: Path) -> None:
    """Create tls.crt and tls.key for localhost."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed; on Debian: apt-get install openssl")
    options = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([openssl, *options.split(), "-keyout", "tls.key", "-out", "tls.crt"], cwd=folder, check=True)
    (folder / "tls.key").chmod(0o644)


def test_a_tmp_that_is_noexec_is_reported(tmp_path):
    """Docker mounts a tmpfs so by default."""
    result = image.run(IMAGE, options=(*READ_ONLY, "--tmpfs", "/tmp"))
    assert result.returncode == 1
    assert "noexec" in result.stderr


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
