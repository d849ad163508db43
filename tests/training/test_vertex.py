"""The jobs for Vertex AI fit Google's description of the API, the image, and the command that they start."""

import contextlib
import copy
import json
import os
import re
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.conftest import ROOT, program
from tests.support.dockerfile import Dockerfile
from tests.support.google_apis import validator
from tests.support.killed_training import run_killed
from tests.support.small_config import SMALL

FOLDER = ROOT / "training" / "vertex"
FILES = ("cpu.yaml", "gpu.yaml", "two_machines.yaml")
# The API takes any text. From Google's list of machine types for custom training: with their only GPU, if they have one
MACHINES = {"n2-standard-8": (None, None), "g2-standard-8": ("NVIDIA_L4", 1)}

each_file = pytest.mark.parametrize("file", FILES)


def job(file: str) -> dict[str, Any]:
    """A job with its own copy of each pool: YAML shares the two pools of `two_machines.yaml`."""
    return copy.deepcopy(json.loads(json.dumps(yaml.safe_load((FOLDER / file).read_text()))))


def arguments(file: str, gcs: Path | str = "/gcs") -> list[str]:
    """The arguments of the container, which are the same on all machines."""
    (distinct,) = {tuple(pool["containerSpec"]["args"]) for pool in job(file)["workerPoolSpecs"]}
    return [argument.replace("/gcs/", f"{gcs}/") for argument in distinct]


def validate(message: dict[str, Any], name: str = "CustomJobSpec") -> None:
    validator("aiplatform.v1", f"GoogleCloudAiplatformV1{name}").validate(message)


def test_every_file_is_tested():
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(FILES)


@each_file
def test_the_job_fits_the_api(file):
    validate(job(file))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec, pool: spec["scheduling"].update(spot=True), "spot"),
        (lambda spec, pool: spec["scheduling"].update(strategy="CHEAP"), "'CHEAP' is not one of"),
        (lambda spec, pool: spec["scheduling"].update(timeout=86400), "86400 is not of type 'string'"),
        (lambda spec, pool: pool["machineSpec"].update(acceleratorType="NVIDIA_L5"), "'NVIDIA_L5' is not one of"),
        (lambda spec, pool: pool["machineSpec"].update(acceleratorCount="1"), "'1' is not of type 'integer'"),
        (lambda spec, pool: pool.update(replicaCount="two"), "'two'"),
        (lambda spec, pool: pool["containerSpec"].update(image_uri="x"), "image_uri"),
        (lambda spec, pool: pool["containerSpec"].update(args="train"), "'train' is not of type 'array'"),
    ],
)
def test_a_field_that_the_api_rejects_is_an_error(change, message):
    spec = job("gpu.yaml")
    change(spec, spec["workerPoolSpecs"][0])
    with pytest.raises(jsonschema.ValidationError, match=message):
        validate(spec)


@each_file
def test_machines_and_gpus_exist_together(file):
    for pool in job(file)["workerPoolSpecs"]:
        machine = pool["machineSpec"]
        gpu = (machine.get("acceleratorType"), machine.get("acceleratorCount"))
        assert MACHINES[machine["machineType"]] == gpu
        assert f"trainer.accelerator={'gpu' if gpu[1] else 'cpu'}" in arguments(file)


@each_file
def test_the_image_is_that_of_the_project_and_starts_its_own_program(file):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for pool in job(file)["workerPoolSpecs"]:
        assert pool["containerSpec"]["imageUri"] == f"vinegrape-train:{version}"
        assert "command" not in pool["containerSpec"]  # it would replace the entry point
    assert Dockerfile("Dockerfile.train").json("ENTRYPOINT") == ["vinegrape"]


@each_file
def test_the_job_runs_on_spot_machines_with_an_account_of_its_own(file):
    spec = job(file)
    assert spec["scheduling"]["strategy"] == "SPOT"
    assert re.fullmatch(r"\d+s", spec["scheduling"]["timeout"])
    assert "disableRetries" not in spec["scheduling"]
    assert spec["serviceAccount"] == "vinegrape-train@PROJECT.iam.gserviceaccount.com"


@each_file
def test_the_run_is_where_vertex_ai_expects_the_model(file):
    """AIP_MODEL_DIR is the folder `model` of the base output directory; buckets are mounted at /gcs."""
    base = job(file)["baseOutputDirectory"]["outputUriPrefix"]
    assert f"run_dir={base.replace('gs://', '/gcs/')}/model" in arguments(file)


def test_two_machines_train_one_model_with_the_batches_of_one():
    from vinegrape_training.fit.config import compose_config

    pools = job("two_machines.yaml")["workerPoolSpecs"]
    assert [int(pool["replicaCount"]) for pool in pools] == [1, 1]  # the first pool may have one machine only
    two, one = (compose_config(arguments(file)[1:]) for file in ("two_machines.yaml", "gpu.yaml"))
    assert (two.trainer.num_nodes, two.trainer.devices, two.trainer.strategy) == (2, 1, "ddp")
    assert two.data.batch_size * 2 == one.data.batch_size
    assert job("two_machines.yaml")["scheduling"]["restartJobOnWorkerRestart"]


@pytest.mark.trains
@pytest.mark.xdist_group("test_train")
def test_the_container_that_is_started_again_continues_the_run(drawn, tmp_path):
    """Vertex AI starts the same command on another machine, where the same bucket is mounted."""
    from vinegrape_cli.main import vinegrape
    from vinegrape_training.fit.run import Run

    bucket = tmp_path / "BUCKET"
    (bucket / "data").mkdir(parents=True)
    (bucket / "data" / "grapevine_leaves").symlink_to(drawn)
    command = [*arguments("cpu.yaml", tmp_path), *SMALL, "trainer.max_epochs=3", "data.batch_size=8"]
    run_killed("step 4", *command)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["vinegrape"])
        vinegrape(command, standalone_mode=False)
    assert Run.read(bucket / "runs" / "RUN" / "model").metrics["epochs"] == 3


@each_file
def test_every_setting_is_valid(file):
    from vinegrape_training.fit.config import check, compose_config

    program_name, *overrides = arguments(file)
    assert program_name == "train"
    check(compose_config(overrides))


class VertexAI(BaseHTTPRequestHandler):
    """Answers each request with a created job, and keeps the request."""

    requests: list[tuple[str, dict[str, Any]]]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).requests.append((self.path, body))
        answer = json.dumps({"name": "projects/1/locations/europe-west4/customJobs/2", **body}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_arguments: object) -> None:
        """Do not log."""


@contextlib.contextmanager
def vertex_ai() -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """A stand-in for Vertex AI: its address, and the requests that it has received."""
    handler = type("Handler", (VertexAI,), {"requests": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", handler.requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.tools
@each_file
def test_gcloud_sends_the_job(file, tmp_path):
    """The real Google Cloud CLI reads the file; the stand-in receives what Vertex AI would."""
    gcloud = program("gcloud", "google-cloud-cli")
    with vertex_ai() as (address, requests):
        subprocess.run(
            [gcloud, "ai", "custom-jobs", "create", "--region=europe-west4", "--project=some-project",
             "--display-name=vinegrape-first", f"--config={FOLDER / file}"],
            env=os.environ | {
                "CLOUDSDK_CONFIG": str(tmp_path),
                "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
                "CLOUDSDK_CORE_DISABLE_PROMPTS": "true",
                "CLOUDSDK_API_ENDPOINT_OVERRIDES_AIPLATFORM": address,
                "CLOUDSDK_PROXY_ADDRESS": "",
                "no_proxy": "127.0.0.1",
            },
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    ((path, body),) = requests
    assert path.partition("?")[0] == "/v1/projects/some-project/locations/europe-west4/customJobs"
    validate(body, "CustomJob")
    pools = body["jobSpec"].pop("workerPoolSpecs")
    expected = job(file)
    for sent, pool in zip(pools, expected.pop("workerPoolSpecs"), strict=True):
        assert int(sent.pop("replicaCount")) == pool.pop("replicaCount")
        assert sent == pool
    assert body["jobSpec"] == expected
