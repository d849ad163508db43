"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.server import Live

# Set before torch is imported. More threads than cores slow down the tests' tiny networks: training takes 90 s
# instead of 3 s if other programs use the two cores too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("VINEGRAPE_SHARED", ROOT.parent / "shared"))
ALL = os.environ.get("VINEGRAPE_TESTS") == "all"
DATA_LIMIT = resource.getrlimit(resource.RLIMIT_DATA)


def pytest_addoption(parser):
    """Add the option of `tests/serving/test_page.py`."""
    parser.addoption("--screenshots", metavar="FOLDER", help="write pictures of the web page's states to this folder")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Report a skipped test as failed if VINEGRAPE_TESTS is "all", which states that every requirement is met."""
    report = yield
    if ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"VINEGRAPE_TESTS=all allows no skip: {report.longrepr}"
    return report


# `pytest -n 2 --dist loadgroup` runs the tests of one group in one process, so that they share a costly fixture.
GROUPS = {
    "server": "server",
    "batching_server": "tiny_server",
    "tiny_server": "tiny_server",
    "counted_server": "counted_server",
    "small_archive": "trained",
    "export": "trained",
    "run": "trained",
    "tiny_torch_archive": "torch",
}
TRAINED = {"small_archive", "export", "run"}
LIVE = {"server", "batching_server", "tiny_server", "counted_server"}


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(items):
    """Mark tests whose fixtures train networks or start servers, and group tests that share a fixture."""
    for item in items:
        fixtures = set(item.fixturenames)
        if fixtures & TRAINED:
            item.add_marker("trains")
        if fixtures & LIVE:
            item.add_marker("live")
        group = next((GROUPS[name] for name in GROUPS if name in fixtures), None)
        if group and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session", autouse=True)
def no_server_left_running() -> Iterator[None]:
    """Kill servers that tests have left running, and fail the run if there are any."""
    yield
    from tests.support import processes

    servers = processes.running_servers()
    command_lines = [processes.command_line(server) for server in servers]
    processes.kill(servers)
    assert not command_lines, "A test left these processes running"


@pytest.fixture(autouse=True)
def memory_is_not_limited() -> Iterator[None]:
    """Remove the limit that the handler sets when a test loads a model in this process."""
    yield
    resource.setrlimit(resource.RLIMIT_DATA, DATA_LIMIT)


@pytest.fixture(scope="session", autouse=True)
def child_processes_receive_sighup() -> None:
    """Let child processes receive SIGHUP when pytest runs under nohup.

    nohup ignores the signal, and child processes inherit that. They do not inherit a handler: with a handler that does
    nothing, pytest survives the signal, and the programs that it starts have the default action.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _number, _frame: None)


def shared(name: str) -> Path:
    """Return the path of data that is not in the repository; skip the test if it does not exist."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} does not exist; set VINEGRAPE_SHARED to the folder that contains {name}")
    return path


def program(name: str, package: str) -> str:
    """Return the path of a program that pip cannot install; skip the test if it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed; on Debian: apt-get install {package}")
    return path


@pytest.fixture(scope="session")
def leaves() -> Path:
    """The real leaf images, one folder per class."""
    return shared("data/grapevine_leaves")


@pytest.fixture(scope="session")
def foreign_images() -> Path:
    """Photos that show no leaf of the five varieties."""
    return shared("data/ood")


@pytest.fixture(scope="session")
def pretrained() -> Path:
    """ImageNet weights of timm's mobilenetv2_100."""
    return shared("weights/mobilenetv2_100_imagenet.pth")


@pytest.fixture(scope="session")
def leaf() -> bytes:
    """The image of the curl command in README."""
    return (ROOT / "docs" / "leaf.png").read_bytes()


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> Path:
    """The committed model, packed with the current code of the handler."""
    from vinegrape_training.export.archive import build

    path = tmp_path_factory.mktemp("store") / "vinegrape.mar"
    build(ROOT / "model_store" / "vinegrape.mar", path)
    return path


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """A small data set of drawn leaves: five classes, one folder per class, 10 images of 64 x 64 pixels in each."""
    from vinegrape_training.data import drawn_leaves

    folder = tmp_path_factory.mktemp("drawn")
    drawn_leaves.draw_dataset(folder / "leaves", images_per_class=10, seed=0, side=64)
    return folder / "leaves"


@pytest.fixture(scope="session")
def run(drawn, tmp_path_factory) -> Path:
    """The folder of a short training run of a small CNN on drawn leaves."""
    from tests.support.small_config import compose_config
    from vinegrape_training.fit.train import train

    folder = tmp_path_factory.mktemp("run") / "run"
    # Enough epochs for different predictions: tests cannot use a network that returns 0.2 for every class
    steps = ("trainer.max_epochs=15", "trainer.patience=15", "data.batch_size=8")
    train(compose_config(f"data.dir={drawn}", f"run_dir={folder}", "augmentation=light", *steps))
    return folder


@pytest.fixture(scope="session")
def export(run, tmp_path_factory) -> Path:
    """The export of `run`, in every format."""
    from vinegrape_training.export.export import export_run
    from vinegrape_training.export.parity import ParityLimits

    folder = tmp_path_factory.mktemp("export") / "export"
    export_run(run, folder, limits=ParityLimits(int8_agreement=0.8))
    return folder


@pytest.fixture(scope="session")
def small_archive(export, tmp_path_factory) -> Path:
    """The archive of `export`, with the weights of every backend."""
    from vinegrape_handler.weights import BACKENDS
    from vinegrape_training.export.archive import build

    path = tmp_path_factory.mktemp("small_store") / "vinegrape.mar"
    build(export, path, BACKENDS)
    return path


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory) -> Path:
    """The exported model of `tests/support/tiny_archive.py`, with ONNX weights."""
    from tests.support import tiny_archive as tiny_archive_files

    folder = tmp_path_factory.mktemp("tiny") / "export"
    tiny_archive_files.write_export(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_archive(tiny_export, tmp_path_factory) -> Path:
    """The archive of `tiny_export`, with the current code of the handler."""
    from tests.support import tiny_archive as tiny_archive_files

    return tiny_archive_files.write_archive(tmp_path_factory.mktemp("tiny_store") / "vinegrape.mar", tiny_export)


@pytest.fixture(scope="session")
def abstaining_archive(tmp_path_factory) -> Path:
    """The archive of the tiny model that computes OOD scores, so it does not know blue images, and explanations."""
    from tests.support import tiny_archive as tiny_archive_files

    folder = tmp_path_factory.mktemp("abstaining")
    tiny_archive_files.write_export(folder / "export", ood_threshold=tiny_archive_files.OOD_THRESHOLD, explains=True)
    return tiny_archive_files.write_archive(folder / "vinegrape.mar", folder / "export")


@pytest.fixture(scope="session")
def tiny_torch_archive(tmp_path_factory) -> Path:
    """The archive of the same model with the weights of every backend; imports torch."""
    from tests.support import tiny_archive as tiny_archive_files
    from vinegrape_handler.weights import BACKENDS

    folder = tmp_path_factory.mktemp("tiny_torch")
    tiny_archive_files.write_export(folder / "export", BACKENDS)
    return tiny_archive_files.write_archive(folder / "vinegrape.mar", folder / "export")


@pytest.fixture(scope="session")
def server(archive, tmp_path_factory) -> Iterator[Live]:
    """The committed model, served as by `make serve`, with one worker."""
    from tests.support.server import serving

    with serving(archive, tmp_path_factory.mktemp("server") / "log") as live:
        yield live


@pytest.fixture(scope="session")
def tiny_server(tiny_archive, tmp_path_factory) -> Iterator[Live]:
    """The model of `tiny_archive`, served with one worker."""
    from tests.support.server import serving

    with serving(tiny_archive, tmp_path_factory.mktemp("tiny_server") / "log") as live:
        yield live
