"""The shell blocks of the deployment pages run, their commands are valid, and the files that they write are valid."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.conftest import ROOT
from tests.k8s.manifests import Manifest, Manifests, kubectl, render
from tests.k8s.policies import POLICIES
from tests.k8s.schemas import NEWEST_KUBERNETES, WITHOUT_SCHEMA, validate_cloud_run
from tests.support.google_apis import validator
from tests.support.shell_page import DIGEST, KEY, run, scripts
from vinegrape_server.settings import ServeSettings

PAGES = ("docker.md", "gke.md", "cloud-run.md", "vertex-ai.md")
IMAGE = f"europe-west4-docker.pkg.dev/my-vinegrape-1234/vinegrape/vinegrape-serve@{DIGEST}"


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with the files that the blocks read."""
    return copy_files(tmp_path)


def copy_files(folder: Path) -> Path:
    """Copy the files that the blocks read to a folder."""
    for name in ("k8s", "training/vertex"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> list[list[str]]:
    """Every command of the pages, as program and arguments."""
    folder = copy_files(tmp_path_factory.mktemp("pages"))
    return run([block for page in PAGES for block in scripts(page)], folder)


def commands_of(program: str, commands: list[list[str]]) -> list[list[str]]:
    """The different commands of one program."""
    matching = [list(command) for command in dict.fromkeys(map(tuple, commands)) if command[0] == program]
    assert matching, f"The pages have no command of {program}."
    return matching


# Names in the pages


def test_files_in_commands_exist(commands):
    files = [command[command.index(option) + 1] for command in commands for option in ("-f", "-T") if option in command]
    assert {"Dockerfile.serve", "Dockerfile.train", "docs/leaf.png"} <= set(files)
    assert [file for file in files if file != "-" and not (ROOT / file).exists()] == []  # -: standard input


def test_published_and_requested_ports_are_public_ports_of_the_server(commands):
    settings = ServeSettings(edge=True)
    public = {settings.edge_port, settings.operations_port}
    words = [word for command in commands if command[0] in ("docker", "kubectl", "curl") for word in command]
    mapped = [port for word in words if re.fullmatch(r"([\d.]+:)?\d{4}:\d{4}", word) for port in word.split(":")[-2:]]
    requested = [match[1] for word in words if (match := re.match(r"https?://[^/]*:(\d+)/", word))]
    assert mapped
    assert requested
    assert set(map(int, mapped + requested)) <= public


def test_git_ignores_the_folder_that_the_blocks_write():
    assert "/deploy/" in (ROOT / ".gitignore").read_text().splitlines()


# Grammar of the commands


def gcloud_faults(commands: list[list[str]], folder: Path) -> dict[str, str]:
    """The error of each command that the Google Cloud CLI's own linter rejects. The linter sends no request."""
    program = shutil.which("gcloud")
    if program is None:
        pytest.skip("gcloud is not installed; install the Google Cloud CLI: https://cloud.google.com/sdk/docs/install")
    lines = [shlex.join(command) for command in commands]
    file = folder / "commands.json"
    file.write_text(json.dumps([{"command_string": line} for line in lines]))
    result = subprocess.check_output(
        [program, "meta", "lint-gcloud-commands", f"--commands-file={file}"],
        env={**os.environ, "CLOUDSDK_CONFIG": str(folder)},
    )
    checked = json.loads(result)
    assert [line["command_string"] for line in checked] == lines
    return {line["command_string"]: line["error_message"] for line in checked if not line["success"]}


def kubectl_faults(commands: list[list[str]]) -> dict[str, str]:
    """The error of each command that kubectl cannot parse.

    With --help, kubectl parses all options and then prints help, without a cluster. For a wrong subcommand it prints
    the usage of the group, such as `kubectl rollout SUBCOMMAND`.
    """
    faults = {}
    for command in commands:
        result = subprocess.run([kubectl(), *command[1:], "--help"], capture_output=True, text=True)
        if result.returncode != 0 or " SUBCOMMAND" in result.stdout:
            faults[shlex.join(command)] = result.stderr or result.stdout
    return faults


@pytest.mark.tools
def test_gcloud_commands_are_valid(commands, tmp_path):
    assert gcloud_faults(commands_of("gcloud", commands), tmp_path) == {}


@pytest.mark.tools
def test_a_wrong_gcloud_option_is_found(tmp_path):
    command = shlex.split("gcloud container clusters create-auto vinegrape --locatio=europe-west4")
    (fault,) = gcloud_faults([command], tmp_path).values()
    assert "--locatio" in fault


@pytest.mark.tools
def test_kubectl_commands_are_valid(commands):
    assert kubectl_faults(commands_of("kubectl", commands)) == {}


@pytest.mark.tools
@pytest.mark.parametrize("line", ["aply -k deploy", "apply -k deploy --forse", "rollout statu deployment/x"])
def test_a_wrong_kubectl_command_is_found(line):
    assert kubectl_faults([["kubectl", *line.split()]])


# Files that the blocks write


def check(manifests: Manifests) -> None:
    """Assert that rendered manifests follow every policy, fit the schemas, and use the image that was pushed."""
    for policy in POLICIES:
        assert list(policy(manifests)) == []
    for manifest in manifests.objects:
        if manifest["kind"] not in WITHOUT_SCHEMA:
            kubernetes_validate.validate(manifest, NEWEST_KUBERNETES, strict=True)
    assert manifests.server["image"] == IMAGE


@pytest.mark.tools
@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_the_written_kustomization_is_valid(overlay, folder):
    run(scripts("docker.md") + scripts("gke.md", until="Open it to addresses outside the cluster"), folder)
    file = folder / "deploy" / "kustomization.yaml"
    file.write_text(file.read_text().replace("../k8s/overlays/cpu", f"../k8s/overlays/{overlay}"))
    check(render(folder / "deploy"))


@pytest.mark.tools
def test_the_load_balancer_admits_the_listed_addresses_to_the_public_port(folder):
    run(scripts("docker.md") + scripts("gke.md"), folder)
    manifests = render(folder / "deploy")
    check(manifests)
    service = manifests.one("Service")["spec"]
    assert (service["type"], service["loadBalancerSourceRanges"]) == ("LoadBalancer", ["198.51.100.0/24"])
    (rule,) = manifests.named("NetworkPolicy", "load-balancer")["spec"]["ingress"]
    assert rule["from"] == [{"ipBlock": {"cidr": "198.51.100.0/24"}}]
    assert {port["port"] for port in rule["ports"]} == {"http"}


@pytest.mark.tools
def test_the_load_balancer_comes_with_api_keys_and_tls_from_the_created_secrets(folder):
    commands = run(scripts("docker.md") + scripts("gke.md"), folder)
    created = {command[6] for command in commands if command[3:5] == ["create", "secret"]}
    volumes = render(folder / "deploy").pod["volumes"]
    mounted = {volume["secret"]["secretName"] for volume in volumes if "secret" in volume}
    assert mounted == created == {"vinegrape-api-keys", "vinegrape-tls"}
    assert (folder / "deploy" / "api-keys").read_text() == f"phone-app {KEY}\n"
    (request,) = [command for command in commands if command[0] == "curl" and "--resolve" in command]
    assert f"X-Api-Key: {KEY}" in request


def cloud_run_service(folder: Path) -> Manifest:
    """The written service file, which is valid and uses the pushed image and the created account."""
    service = yaml.safe_load((folder / "deploy" / "cloudrun.yaml").read_text())
    validate_cloud_run(service)
    spec = service["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == IMAGE
    assert spec["serviceAccountName"] == "vinegrape@my-vinegrape-1234.iam.gserviceaccount.com"
    return spec


def test_the_written_cloud_run_service_is_valid(folder):
    blocks = scripts("docker.md") + scripts("cloud-run.md", until="Allow clients without a Google identity")
    assert shlex.split("gcloud iam service-accounts create vinegrape") in run(blocks, folder)
    assert "volumes" not in cloud_run_service(folder)


@pytest.mark.tools
def test_the_cloud_run_service_with_api_keys_mounts_the_created_secret(folder):
    kubectl()  # the block runs it
    commands = run(scripts("docker.md") + scripts("cloud-run.md"), folder)
    (volume,) = cloud_run_service(folder)["volumes"]
    assert shlex.split("gcloud secrets create vinegrape-api-keys --data-file=deploy/api-keys") in commands
    assert volume["secret"]["secretName"] == "vinegrape-api-keys"


@pytest.mark.parametrize("file", ["cpu.yaml", "gpu.yaml", "two_machines.yaml"])
def test_the_written_job_of_vertex_ai_is_valid(file, folder):
    blocks = [block.replace("gpu.yaml", file) for block in scripts("docker.md") + scripts("vertex-ai.md")]
    commands = run(blocks, folder)
    assert shlex.split("gcloud iam service-accounts create vinegrape-train") in commands
    text = (folder / "deploy" / "vertex.yaml").read_text()
    job = yaml.safe_load(text)
    validator("aiplatform.v1", "GoogleCloudAiplatformV1CustomJobSpec").validate(job)
    (image,) = {pool["containerSpec"]["imageUri"] for pool in job["workerPoolSpecs"]}
    assert image == IMAGE.replace("vinegrape-serve", "vinegrape-train")
    assert job["serviceAccount"] == "vinegrape-train@my-vinegrape-1234.iam.gserviceaccount.com"
    assert job["baseOutputDirectory"] == {"outputUriPrefix": "gs://my-vinegrape-1234-training/runs/first"}
    assert not re.search("BUCKET|PROJECT|RUN", "\n".join(line for line in text.splitlines() if line[0] != "#"))
    (upload, download) = [command[3:5] for command in commands if command[:3] == ["gcloud", "storage", "rsync"]]
    arguments = job["workerPoolSpecs"][0]["containerSpec"]["args"]
    assert f"data.dir={upload[1].replace('gs://', '/gcs/')}" in arguments
    assert f"run_dir={download[0].replace('gs://', '/gcs/')}" in arguments
