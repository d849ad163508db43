"""Another model is loaded, answers and is rolled back in a running server, without a lost request."""

import json
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest

from tests.conftest import program
from tests.support import tiny_archive
from tests.support.processes import workers
from tests.support.server import Live, command, run_command, serving, wait_until
from vinegrape_client.inference_pb2 import PredictionsRequest
from vinegrape_client.inference_pb2_grpc import InferenceAPIsServiceStub

pytestmark = [pytest.mark.live, pytest.mark.tools, pytest.mark.xdist_group("swap_server")]


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> dict[str, Path]:
    """Archives by their version."""
    folder = tmp_path_factory.mktemp("versions")
    made = {}
    for version in ("one", "two", "three"):
        reference = tiny_archive.RED_REFERENCE if version == "two" else None
        tiny_archive.write_export(folder / version, version=version, reference=reference)
        made[version] = tiny_archive.write_archive(folder / f"{version}.mar", folder / version)
    return made


@pytest.fixture(scope="module")
def swap_server(archives, tmp_path_factory) -> Iterator[Live]:
    """Version one, with two workers behind the edge."""
    program("haproxy", "haproxy")
    with serving(archives["one"], tmp_path_factory.mktemp("swap") / "log", workers=2, edge=True) as live:
        yield live


def models(live: Live, *arguments: object):
    """Run `vinegrape models` for a server."""
    port = live.ports["operations_port"]
    return run_command(command("models", *map(str, arguments), f"--operations-port={port}"))


def served(live: Live) -> str:
    """The version that answers."""
    (version,) = [key[-1] for key in live.metrics() if key[0] == "vinegrape_model_info"]
    return version


@contextmanager
def load(live: Live, image: bytes) -> Iterator[Counter[str]]:
    """Requests over REST and gRPC while the block runs: yields how often each version has answered, or an error."""
    seen: Counter[str] = Counter()
    lock, ended = threading.Lock(), threading.Event()

    def count(outcome: str) -> None:
        with lock:
            seen[outcome] += 1

    def over_rest() -> None:
        with httpx.Client() as client:
            while not ended.is_set():
                response = client.post(live.url, content=image)
                body = response.json()
                count(body["model"]["version"] if response.status_code == 200 else f"{response.status_code}: {body}")

    def over_grpc() -> None:
        with grpc.insecure_channel(live.grpc_address) as channel:
            predict = InferenceAPIsServiceStub(channel).Predictions
            request = PredictionsRequest(model_name="vinegrape", input={"data": image})
            while not ended.is_set():
                try:
                    count(json.loads(predict(request).prediction)["model"]["version"])
                except grpc.RpcError as error:
                    count(f"{error.code()}: {error.details()}")
                ended.wait(0.02)

    threads = [threading.Thread(target=target) for target in (over_rest, over_rest, over_grpc)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def test_two_swaps_and_a_rollback_lose_no_request(swap_server, archives, image):
    """2,000 requests or more; no worker's end counts as a death, and the server is ready all the time."""
    log = swap_server.log
    with load(swap_server, image) as seen:
        wait_until(lambda: seen["one"] > 100)
        for archive, version in [("two", "two"), ("three", "three"), (None, "two")]:
            result = models(swap_server, *(["swap", archives[archive]] if archive else ["rollback"]))
            assert result.returncode == 0, result.stderr
            assert result.stdout.splitlines()[0].split() == [version, "serving", "vinegrape"]
            before = seen[version]
            wait_until(lambda v=version, b=before: seen[v] > b + 100)
        wait_until(lambda: seen.total() >= 2000, seconds=120)
    assert set(seen) == {"one", "two", "three"}
    assert models(swap_server, "list").stdout.split() == [
        *("two", "serving", "vinegrape"),
        *("three", "previous", "vinegrape"),
    ]
    assert len(workers(swap_server.process)) == 2
    metrics = swap_server.metrics()
    assert metrics[("vinegrape_worker_deaths_total",)] == 0
    assert served(swap_server) == "two"
    counted = {key[2]: value for key, value in metrics.items() if key[:2] == ("vinegrape_predictions_total", "Ak")}
    assert counted == dict(seen)
    wait_until(lambda: log.read_text().count('"version":"three"') == seen["three"])


def test_the_description_and_versioned_paths_follow(swap_server, archives, image):
    version = served(swap_server)
    other = next(name for name in archives if name != version)
    assert models(swap_server, "swap", archives[other]).returncode == 0
    url = f"http://127.0.0.1:{swap_server.rest_port}"
    assert httpx.get(f"{url}/v2/models/vinegrape/versions/{other}").status_code == 200
    assert httpx.get(f"{url}/v2/models/vinegrape/versions/{version}").status_code == 404
    with grpc.insecure_channel(swap_server.grpc_address) as channel:
        predict = InferenceAPIsServiceStub(channel).Predictions
        inputs = {"data": image}
        predict(PredictionsRequest(model_name="vinegrape", model_version=other, input=inputs))
        with pytest.raises(grpc.RpcError) as error:
            predict(PredictionsRequest(model_name="vinegrape", model_version=version, input=inputs))
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


def broken(archive: Path, path: Path, name: str, content: bytes, version: str) -> Path:
    """A copy of an archive with another version, in which one file has other content."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(path, "w") as target:
        for file in source.namelist():
            data = content if file == name else source.read(file)
            target.writestr(file, data.replace(b'"two"', f'"{version}"'.encode()))
    return path


def test_a_bad_archive_never_answers(swap_server, archives, image, tmp_path):
    before, loaded = served(swap_server), set(workers(swap_server.process))
    bad = {
        "weights": broken(archives["two"], tmp_path / "weights.mar", "model.int8.onnx", b"none", "bad-weights"),
        "handler": broken(
            archives["two"], tmp_path / "handler.mar", "vinegrape_entry.py", b"raise OSError", "bad-code"
        ),
    }
    with load(swap_server, image) as seen:
        for path in bad.values():
            result = models(swap_server, "swap", path)
            assert (result.returncode, "cannot start" in result.stderr) == (1, True), result.stderr
            assert result.stderr.splitlines()[-1].startswith("vinegrape: A worker of version bad-")
    assert set(seen) == {before}
    assert (served(swap_server), set(workers(swap_server.process))) == (before, loaded)
    assert swap_server.is_ready()


def test_an_archive_that_cannot_be_served_is_refused_with_the_reason(swap_server, archives, tmp_path):
    (tmp_path / "text.mar").write_text("text")
    result = models(swap_server, "swap", tmp_path / "text.mar")
    assert (result.returncode, "is not a vinegrape archive" in result.stderr) == (1, True)
    result = models(swap_server, "swap", archives[served(swap_server)])
    assert (result.returncode, "is the one that this server serves" in result.stderr) == (1, True)


def test_without_a_server_the_command_says_what_to_set():
    result = run_command(command("models", "list", "--operations-port=1"))
    assert result.returncode == 1
    assert "No server of this user with the operations port 1" in result.stderr


def test_a_worker_that_is_killed_after_a_swap_is_replaced_by_one_of_the_new_version(swap_server, image):
    version = served(swap_server)
    killed = workers(swap_server.process)[0]
    killed.kill()
    wait_until(lambda: len(workers(swap_server.process)) == 2 and killed not in workers(swap_server.process))
    swap_server.wait_until_ready()
    assert swap_server.post(image).json()["model"]["version"] == version
