"""docs/deploy.md: what it names exists, its commands parse, and what its blocks write is valid."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.conftest import ROOT
from tests.k8s.manifests import Manifest, of_kind, one, pod, render
from tests.k8s.policies import POLICIES
from tests.k8s.test_cloudrun import validate as validate_cloud_run
from tests.k8s.test_schemas import NEWEST, UNKNOWN_KINDS
from vinegrape_server.settings import ServeSettings

PAGE = (ROOT / "docs" / "deploy.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)

DIGEST = "sha256:" + "0123456789abcdef" * 4
# Instead of what would change something outside the folder
STUBS = f"""
set -euo pipefail
gcloud() {{ [[ $* != *image_summary.digest* ]] || echo {DIGEST}; }}
kubectl() {{ :; }}
"""


def variables() -> dict[str, str]:
    """What the page exports, as far as it is plain text."""
    return dict(re.findall(r"^export (\w+)=([\w.:-]+)(?:  #.*)?$", PAGE, re.MULTILINE))


def commands(program: str) -> list[str]:
    """Every command of one program, in blocks and in lines of text, each on one line, its variables filled in."""
    text = "\n".join(BLOCKS).replace("\\\n", " ") + "\n" + "\n".join(re.findall(r"`([^`\n]+)`", PAGE))
    values = {**variables(), "IMAGE": "europe-docker.pkg.dev/a/b/c"}
    found = re.findall(rf"(?:^|\$\(|: |one of: )({program} (?:'[^']*'|\"[^\"]*\"|[^\n)>|;'\"])*)", text, re.MULTILINE)
    filled = (re.sub(r"\$(\w+)", lambda name: values.get(name[1], name[0]), command) for command in found)
    return [" ".join(command.split()) for command in filled]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of what the blocks read."""
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    return tmp_path


def run(folder: Path, *parts: str) -> None:
    """Run the blocks that hold these parts, in the order of the page, after those that only export."""
    blocks = [block for block in BLOCKS if any(part in block for part in ("export PROJECT=", *parts))]
    blocks.insert(1, f"export DIGEST={DIGEST}\n")
    script = STUBS + "\n".join(blocks)
    result = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def check(manifests: list[Manifest]) -> None:
    for policy in POLICIES:
        assert list(policy(manifests)) == []
    for manifest in manifests:
        if manifest["kind"] not in UNKNOWN_KINDS:
            kubernetes_validate.validate(manifest, NEWEST, strict=True)
    (server,) = pod(manifests)["spec"]["containers"]
    assert server["image"] == f"europe-west4-docker.pkg.dev/my-vinegrape-1234/vinegrape/vinegrape-serve@{DIGEST}"


# What it names


def test_every_file_exists():
    named = set(re.findall(r"(?:\.\./)?((?:k8s|docs|loadtests)/[\w./-]+|Dockerfile\.\w+)", PAGE))
    assert {"k8s/overlays/cpu", "k8s/overlays/gpu", "k8s/cloudrun/service.yaml", "docs/leaf.png"} <= named
    assert [path for path in named if not (ROOT / path.rstrip(".")).exists()] == []


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if "://" not in link and not (ROOT / "docs" / link).exists()] == []


def test_every_make_target_exists():
    targets = re.findall(r"`make ([a-z]+)", PAGE)
    assert targets
    makefile = (ROOT / "Makefile").read_text()
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_every_port_is_one_of_the_servers():
    defaults = ServeSettings()
    public = {str(defaults.rest_port), str(defaults.grpc_port), str(defaults.operations_port)}
    named = set(re.findall(r"(?<![\d.])([78]0\d\d)\b", PAGE))
    assert named == public


def test_what_git_must_not_see_is_ignored():
    assert "/deploy/" in (ROOT / ".gitignore").read_text().splitlines()


# Its commands


def test_every_block_is_shell():
    for block in BLOCKS:
        result = subprocess.run(["bash", "-n", "-c", block], capture_output=True, text=True)
        assert result.returncode == 0, f"{block}\n{result.stderr}"


@pytest.fixture
def lint_gcloud(tmp_path):
    """Google's own check of commands against the grammar of its CLI; calls nobody. What is wrong, by command."""
    program = shutil.which("gcloud")
    if program is None:
        pytest.skip("gcloud is not installed; install the Google Cloud CLI: https://cloud.google.com/sdk/docs/install")

    def lint(commands: list[str]) -> dict[str, str]:
        file = tmp_path / "commands.json"
        file.write_text(json.dumps([{"command_string": command} for command in commands]))
        arguments = [program, "meta", "lint-gcloud-commands", f"--commands-file={file}"]
        environment = {**os.environ, "CLOUDSDK_CONFIG": str(tmp_path)}
        answers = json.loads(subprocess.check_output(arguments, env=environment))
        assert [answer["command_string"] for answer in answers] == commands
        return {answer["command_string"]: answer["error_message"] for answer in answers if not answer["success"]}

    return lint


def test_gcloud_knows_every_command(lint_gcloud):
    found = commands("gcloud")
    assert len(found) > 25
    assert lint_gcloud(found) == {}


def test_gcloud_finds_a_wrong_option(lint_gcloud):
    (fault,) = lint_gcloud(["gcloud container clusters create-auto vinegrape --locatio=europe-west4"]).values()
    assert "--locatio" in fault


# What its blocks write


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_the_folder_of_ones_own_is_valid(overlay, folder):
    run(folder, "cat > deploy/kustomization.yaml")
    file = folder / "deploy" / "kustomization.yaml"
    file.write_text(file.read_text().replace("../k8s/overlays/cpu", f"../k8s/overlays/{overlay}"))
    check(render(folder / "deploy"))


def test_the_load_balancer_lets_in_who_is_named_and_to_what_is_public(folder):
    run(folder, "cat > deploy/kustomization.yaml", "cat >> deploy/kustomization.yaml")
    manifests = render(folder / "deploy")
    check(manifests)
    service = one(manifests, "Service")["spec"]
    assert (service["type"], service["loadBalancerSourceRanges"]) == ("LoadBalancer", ["198.51.100.7/32"])
    (opened,) = [each for each in of_kind(manifests, "NetworkPolicy") if each["metadata"]["name"] == "load-balancer"]
    (rule,) = opened["spec"]["ingress"]
    assert rule["from"] == [{"ipBlock": {"cidr": "198.51.100.7/32"}}]
    assert {port["port"] for port in rule["ports"]} == {"rest", "grpc"}


def test_cloud_runs_file_is_valid(folder):
    run(folder, "deploy/cloudrun.yaml --region")
    service = yaml.safe_load((folder / "deploy" / "cloudrun.yaml").read_text())
    validate_cloud_run(service)
    spec = service["spec"]["template"]["spec"]
    image = f"europe-west4-docker.pkg.dev/my-vinegrape-1234/vinegrape/vinegrape-serve@{DIGEST}"
    assert spec["containers"][0]["image"] == image
    assert spec["serviceAccountName"] == "vinegrape@my-vinegrape-1234.iam.gserviceaccount.com"
    assert "gcloud iam service-accounts create vinegrape\n" in PAGE
