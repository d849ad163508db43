"""`vinegrape publish` and `vinegrape fetch`, with folders and with a file system of fsspec in memory."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner

from tests.conftest import ROOT
from tests.support import archives
from tests.support.cli import error_text
from tests.support.metadata import METADATA
from vinegrape_cli.main import vinegrape
from vinegrape_cli.registry import registry as registry_module
from vinegrape_cli.registry.errors import RegistryError
from vinegrape_cli.registry.registry import Registry
from vinegrape_cli.registry.storage import Storage, open_storage

OLD, NEW = "0123456789ab", "ba9876543210"


def write_archive(folder: Path, version: str = OLD, **files: str) -> Path:
    """Write an archive with its card and evaluation, as `vinegrape archive` and `vinegrape evaluate` do."""
    folder.mkdir(exist_ok=True)
    metadata = dataclasses.replace(METADATA, version=version)
    (folder / "MODEL_CARD.md").write_text(f"---\n---\n\n# vinegrape {version}\n")
    (folder / "evaluation.json").write_text(json.dumps({"data_digest": metadata.data_digest}))
    return archives.write(folder / "vinegrape.mar", metadata, ["onnx_int8"], files)


@pytest.fixture
def old(tmp_path) -> Path:
    return write_archive(tmp_path / "old")


@pytest.fixture
def new(tmp_path) -> Path:
    return write_archive(tmp_path / "new", NEW)


@pytest.fixture(params=["folder", "memory"])
def location(request, tmp_path):
    """An empty registry: a folder, or the URL of files that fsspec keeps in memory."""
    if request.param == "folder":
        yield str(tmp_path / "models")
    else:
        yield f"memory://{tmp_path.name}/models"
        fsspec.filesystem("memory").store.clear()


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(vinegrape, list(map(str, arguments)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def files(storage: Storage, version: str = OLD) -> dict[str, bytes]:
    folder = f"vinegrape/versions/{version}"
    return {name: storage.read(f"{folder}/{name}") for name in storage.names(folder)}


def test_a_fetched_archive_has_the_bytes_of_the_published_one(old, location, tmp_path):
    assert f"vinegrape {OLD} published; channel stable names it." in invoke("publish", old, location)
    output = tmp_path / "fetched" / "model.mar"
    assert f"serve --archive {output}" in invoke("fetch", location, "-o", output)
    assert output.read_bytes() == old.read_bytes()
    assert list(output.parent.iterdir()) == [output]


def test_without_output_the_file_is_written_to_the_current_folder(old, location, tmp_path, monkeypatch):
    invoke("publish", old, location)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    invoke("fetch", location)
    assert Path("vinegrape.mar").read_bytes() == old.read_bytes()


def test_a_version_holds_all_files_and_their_digests(old, location):
    invoke("publish", old, location)
    found = files(open_storage(location))
    assert set(found) == {"vinegrape.mar", "MODEL_CARD.md", "evaluation.json", "sbom.cdx.json", "SHA256SUMS"}
    for file in ("MODEL_CARD.md", "evaluation.json"):
        assert found[file] == old.with_name(file).read_bytes()
    sums = dict(reversed(line.split()) for line in found.pop("SHA256SUMS").decode().splitlines())
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
    channel = json.loads(open_storage(location).read("vinegrape/channels/stable.json"))
    assert (channel["name"], channel["version"], channel["sha256"]) == ("vinegrape", OLD, sums)
    assert timedelta() <= datetime.now(UTC) - datetime.fromisoformat(channel["published"]) < timedelta(hours=1)


def test_sha256sum_checks_a_version_in_a_folder(old, tmp_path):
    invoke("publish", old, tmp_path / "models")
    folder = tmp_path / "models" / "vinegrape" / "versions" / OLD
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True)


def test_channels_and_versions(old, new, location, tmp_path):
    """A channel names the version that was published to it last; a version moves to a channel by the same command."""
    output = tmp_path / "fetched.mar"

    def fetched(*options: object) -> str:
        invoke("fetch", location, "-o", output, *options)
        (version,) = [path.parent.name for path in (old, new) if path.read_bytes() == output.read_bytes()]
        return version

    invoke("publish", old, location)
    invoke("publish", new, location, "--channel", "candidate")
    assert (fetched(), fetched("--channel", "candidate")) == ("old", "new")
    before = files(open_storage(location), NEW)
    assert f"vinegrape {NEW} was there already; channel stable names it." in invoke("publish", new, location)
    assert files(open_storage(location), NEW) == before
    assert (fetched(), fetched("--version", OLD), fetched("--version", NEW)) == ("new", "old", "new")


def test_a_fetched_archive_can_be_published_again_without_its_card(old, new, location, tmp_path):
    """This takes a channel back to an older version."""
    for archive in (old, new):
        invoke("publish", archive, location)
    (tmp_path / "alone").mkdir()
    fetched = tmp_path / "alone" / "any.mar"
    invoke("fetch", location, "--version", OLD, "-o", fetched)
    invoke("publish", fetched, location)
    assert f"vinegrape {OLD}" in invoke("fetch", location, "-o", tmp_path / "stable.mar")


def test_a_file_that_is_there_is_not_read_again(old, location, tmp_path):
    invoke("publish", old, location)
    output = tmp_path / "fetched.mar"
    output.write_bytes(old.read_bytes())
    before = output.stat()
    assert f"vinegrape {OLD} already" in invoke("fetch", location, "-o", output)
    assert (output.stat().st_ino, output.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    output.write_bytes(b"another file")
    invoke("fetch", location, "-o", output)
    assert output.read_bytes() == old.read_bytes()


@pytest.mark.parametrize("file", ["vinegrape.mar", "MODEL_CARD.md", "evaluation.json"])
def test_a_version_does_not_change(file, old, location, tmp_path):
    invoke("publish", old, location)
    before = files(open_storage(location))
    if file == "vinegrape.mar":
        write_archive(old.parent, OLD, **{"more.py": "pass"})
    else:
        path = old.with_name(file)
        path.write_text(path.read_text() + "\n")
    digest = hashlib.sha256(old.with_name(file).read_bytes()).hexdigest()
    text = error_text("publish", old, location, "--channel", "candidate")
    assert f"has version {OLD} of vinegrape already, and its {file} has the SHA-256 digest" in text
    assert f"yours has {digest}" in text
    assert files(open_storage(location)) == before
    assert open_storage(location).names("vinegrape/channels") == ["stable.json"]


def test_a_version_gets_no_further_file(old, location):
    evaluation = old.with_name("evaluation.json")
    evaluation.rename(old.parent / "later.json")
    invoke("publish", old, location)
    text = error_text("publish", old, location, "--evaluation", old.parent / "later.json")
    assert "its evaluation.json is missing" in text


@pytest.mark.parametrize("published", range(6))
def test_readers_never_see_a_part_of_a_version(published, old, new, location, tmp_path, monkeypatch):
    """The publisher ends before each of its writes; then a second one finishes the work."""
    invoke("publish", old, location)
    storage = type(open_storage(location))
    write, left = storage.write, [published]

    def interrupted(self, path: str, content: bytes) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(self, path, content)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write", interrupted)
        result = CliRunner().invoke(vinegrape, ["publish", str(new), location])
        assert result.exit_code == 1
    assert f"vinegrape {OLD}" in invoke("fetch", location, "-o", tmp_path / "fetched.mar")
    if published < 5:  # SHA256SUMS is the fifth file, and the channel the sixth
        assert f"Its versions: {OLD}." in error_text("fetch", location, "--version", NEW)
    invoke("publish", new, location)
    assert f"vinegrape {NEW}" in invoke("fetch", location, "-o", tmp_path / "fetched.mar")


@pytest.mark.parametrize("by", ["channel", "version"])
def test_a_file_with_another_digest_is_not_written(by, old, location, tmp_path):
    invoke("publish", old, location)
    open_storage(location).write(f"vinegrape/versions/{OLD}/vinegrape.mar", b"other bytes")
    output = tmp_path / "fetched.mar"
    output.write_bytes(b"an archive that was there")
    options = ["--version", OLD] if by == "version" else []
    text = error_text("fetch", location, "-o", output, *options)
    found, expected = (hashlib.sha256(data).hexdigest() for data in (b"other bytes", old.read_bytes()))
    assert f"has the SHA-256 digest {found} instead of {expected}" in text
    assert output.read_bytes() == b"an archive that was there"


def test_unknown_names_are_errors_that_list_what_there_is(old, new, location):
    text = error_text("fetch", location)
    assert text == f"{location} has no channel stable of vinegrape. It has no channels. Models in {location}: none."
    invoke("publish", old, location)
    invoke("publish", new, location, "--channel", "candidate")
    text = error_text("fetch", location, "--channel", "stabel")
    assert text == f"{location} has no channel stabel of vinegrape. Its channels: candidate, stable."
    text = error_text("fetch", location, "--version", "1.0")
    assert text == f"{location} has no version 1.0 of vinegrape. Its versions: {OLD}, {NEW}."
    assert error_text("fetch", location, "--name", "leaf").endswith(f"Models in {location}: vinegrape.")


@pytest.mark.parametrize("option", ["--name", "--channel", "--version"])
def test_a_name_cannot_lead_to_another_folder(option, old, location):
    invoke("publish", old, location)
    text = error_text("fetch", location, option, "../secret")
    assert text.startswith(f"The {option[2:]} is '../secret'; it must begin with a letter or digit")


def test_a_channel_cannot_lead_to_another_folder(old, location):
    invoke("publish", old, location)
    storage = open_storage(location)
    channel = json.loads(storage.read("vinegrape/channels/stable.json"))
    storage.write("vinegrape/channels/stable.json", json.dumps({**channel, "version": "../x"}).encode())
    assert "The version is '../x'" in error_text("fetch", location)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"version": "1", "sha256": 5}', b"\xff"])
def test_a_damaged_channel_is_an_error(content, old, location):
    invoke("publish", old, location)
    open_storage(location).write("vinegrape/channels/stable.json", content)
    assert f"{location}/vinegrape/channels/stable.json is damaged" in error_text("fetch", location)


@pytest.mark.parametrize("content", [b"", b"0123  vinegrape.mar\n", b"\xff\n"])
def test_damaged_digests_are_an_error(content, old, location):
    invoke("publish", old, location)
    open_storage(location).write(f"vinegrape/versions/{OLD}/SHA256SUMS", content)
    assert "SHA256SUMS is damaged" in error_text("fetch", location, "--version", OLD)


def test_a_version_without_its_archive_is_an_error(old, tmp_path):
    invoke("publish", old, tmp_path / "models")
    (tmp_path / "models" / "vinegrape" / "versions" / OLD / "vinegrape.mar").unlink()
    assert f"has no file vinegrape/versions/{OLD}/vinegrape.mar" in error_text("fetch", tmp_path / "models")


def test_a_new_version_needs_the_card_of_its_archive(old, new, location):
    (new.parent / "MODEL_CARD.md").unlink()
    assert f"{new.parent}/MODEL_CARD.md does not exist" in error_text("publish", new, location)
    (old.parent / "MODEL_CARD.md").rename(new.parent / "MODEL_CARD.md")
    assert f"does not have the title '# vinegrape {NEW}'" in error_text("publish", new, location)
    assert open_storage(location).names("") == []


def test_the_evaluation_must_be_that_of_the_model(old, location, tmp_path):
    other = tmp_path / "other.json"
    assert "is not a report" in error_text("publish", old, location, "--evaluation", other)
    other.write_text("{}")
    assert "is not a report" in error_text("publish", old, location, "--evaluation", other)
    other.write_text('{"data_digest": "other"}')
    assert "evaluates images with the digest other" in error_text("publish", old, location, "--evaluation", other)
    assert open_storage(location).names("") == []


def test_only_an_archive_can_be_published(location, tmp_path):
    assert "There is no archive" in error_text("publish", tmp_path / "none.mar", location)
    (tmp_path / "text.mar").write_text("text")
    assert "is not a vinegrape archive" in error_text("publish", tmp_path / "text.mar", location)


def test_the_committed_archive_can_be_published_with_its_card_and_evaluation(tmp_path):
    committed = ROOT / "model_store" / "vinegrape.mar"
    invoke("publish", committed, tmp_path / "models", "--evaluation", ROOT / "docs" / "model" / "evaluation.json")
    invoke("fetch", tmp_path / "models", "-o", tmp_path / "fetched.mar")
    assert (tmp_path / "fetched.mar").read_bytes() == committed.read_bytes()


def test_a_place_that_cannot_be_used_is_an_error(old, tmp_path):
    (tmp_path / "file").write_text("text")
    assert f"{tmp_path}/file/" in error_text("publish", old, tmp_path / "file")
    assert f"{tmp_path}/file/" in error_text("fetch", tmp_path / "file")


@pytest.mark.parametrize(("url", "package"), [("gs://bucket/models", "gcsfs"), ("s3://bucket/models", "s3fs")])
def test_a_bucket_without_its_package_is_an_error_that_names_the_package(url, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    assert error_text("fetch", url).endswith(f"Run: pip install {package}")


def test_an_unknown_kind_of_url_is_an_error():
    assert error_text("fetch", "nothing://bucket/models").startswith("nothing://bucket/models cannot be opened: ")


def test_an_error_of_a_file_system_is_an_error_of_the_registry(old, monkeypatch):
    def failing(*arguments: object, **options: object) -> None:
        raise PermissionError("403 Forbidden")

    memory = type(fsspec.filesystem("memory"))
    for method in ("cat_file", "pipe_file", "ls"):
        monkeypatch.setattr(memory, method, failing)
    registry = Registry("memory://models")
    release = registry_module.Release("vinegrape", OLD, {"vinegrape.mar": ""})
    for call in (
        lambda: registry.release_of_channel("vinegrape", "stable"),
        lambda: registry.set_channel("stable", release),
        lambda: open_storage("memory://models").names(""),
    ):
        with pytest.raises(RegistryError, match="403 Forbidden"):
            call()


WITHOUT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("fsspec", "gcsfs", "cyclonedx", "packaging", "vinegrape_training", "torch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.argv[0] = "vinegrape"
from vinegrape_cli.main import main
main()
"""


def test_an_environment_that_serves_can_fetch_from_a_folder(old, tmp_path):
    """It has only the project's `dependencies`, and may lack our training package."""

    def fetch(location: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", WITHOUT, "fetch", str(location), "-o", str(tmp_path / "fetched.mar")]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    invoke("publish", old, tmp_path / "models")
    assert fetch(tmp_path / "models").returncode == 0
    assert (tmp_path / "fetched.mar").read_bytes() == old.read_bytes()
    result = fetch("gs://bucket/models")
    assert result.returncode == 1
    assert result.stderr.endswith("Run: pip install gcsfs\n")
