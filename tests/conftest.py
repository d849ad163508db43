"""Fixtures that more than one folder of tests uses."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before torch is imported: the networks here are tiny, and threads that share two cores with anything else only fight
# over them (90 s of training instead of 3).
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.support import tiny_archive as tiny_archive_files
from tests.support.server import Live, serving
from vinegrape_handler.weights import BACKENDS
from vinegrape_training.data import drawn_leaves

ROOT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("VINEGRAPE_SHARED", ROOT.parent / "shared"))
ALL = os.environ.get("VINEGRAPE_TESTS") == "all"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With VINEGRAPE_TESTS=all, everything that a test needs is said to be there: a skip is a failure."""
    report = yield
    if ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"VINEGRAPE_TESTS=all allows no skip: {report.longrepr}"
    return report


# Tests that use the same costly fixture run in one process of `pytest -n 2 --dist loadgroup`, so that it is made once.
GROUPS = {
    "batching_server": "server",
    "server": "server",
    "small_archive": "trained",
    "export": "trained",
    "run": "trained",
}
TRAINED = {"small_archive", "export", "run"}


def pytest_collection_modifyitems(items):
    """Mark each test by the fixtures that it uses: what they start, and the group that shares them."""
    for item in items:
        fixtures = set(item.fixturenames)
        if fixtures & TRAINED:
            item.add_marker("trains")
        if fixtures & {"server", "batching_server"}:
            item.add_marker("live")
        group = next((GROUPS[name] for name in GROUPS if name in fixtures), None)
        if group and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(group))


def shared(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there; set VINEGRAPE_SHARED to the folder that holds {name}")
    return path


def program(name: str, package: str) -> str:
    """The path of a program that pip cannot install."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed; on Debian: apt-get install {package}")
    return path


@pytest.fixture(scope="session")
def leaves() -> Path:
    """The real leaf images, a folder a class."""
    return shared("data/grapevine_leaves")


@pytest.fixture(scope="session")
def strangers() -> Path:
    """Pictures that are no leaf of the five varieties."""
    return shared("data/ood")


@pytest.fixture(scope="session")
def pretrained() -> Path:
    """ImageNet weights for timm's mobilenetv2_100."""
    return shared("weights/mobilenetv2_100_imagenet.pth")


@pytest.fixture(scope="session")
def leaf() -> bytes:
    """The picture of README's curl."""
    return (ROOT / "docs" / "leaf.png").read_bytes()


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> Path:
    """The committed model in an archive with the code as it is now."""
    from vinegrape_training.export.archive import build

    path = tmp_path_factory.mktemp("store") / "vinegrape.mar"
    build(ROOT / "model_store" / "vinegrape.mar", path)
    return path


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    """A small data set of drawn leaves, a folder a class: 10 of each of five kinds, 64 px."""
    folder = tmp_path_factory.mktemp("drawn")
    drawn_leaves.draw_dataset(folder / "leaves", images_per_class=10, seed=0, side=64)
    return folder / "leaves"


@pytest.fixture(scope="session")
def run(drawn, tmp_path_factory) -> Path:
    """The folder of a small CNN's short training run on drawn leaves."""
    from tests.support.small_config import compose_config
    from vinegrape_training.fit.train import train

    folder = tmp_path_factory.mktemp("run") / "run"
    # enough for answers that differ: a network that gives every kind a fifth tells no test anything
    steps = ("trainer.max_epochs=15", "trainer.patience=15", "data.batch_size=8")
    train(compose_config(f"data.dir={drawn}", f"run_dir={folder}", "augmentation=light", *steps))
    return folder


@pytest.fixture(scope="session")
def export(run, tmp_path_factory) -> Path:
    """That run's export, in every format."""
    from vinegrape_training.export.export import export_run
    from vinegrape_training.export.parity import ParityLimits

    folder = tmp_path_factory.mktemp("export") / "export"
    export_run(run, folder, limits=ParityLimits(int8_agreement=0.8))
    return folder


@pytest.fixture(scope="session")
def small_archive(export, tmp_path_factory) -> Path:
    """That export's archive, with the weights of every backend."""
    from vinegrape_training.export.archive import build

    path = tmp_path_factory.mktemp("small_store") / "vinegrape.mar"
    build(export, path, BACKENDS)
    return path


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory) -> Path:
    """The folder of a model whose answers can be worked out on paper, with ONNX weights."""
    folder = tmp_path_factory.mktemp("tiny") / "export"
    tiny_archive_files.write_export(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_archive(tiny_export, tmp_path_factory) -> Path:
    """That model's archive, with the handler's code as it is now."""
    return tiny_archive_files.write_archive(tmp_path_factory.mktemp("tiny_store") / "vinegrape.mar", tiny_export)


@pytest.fixture(scope="session")
def tiny_torch_archive(tmp_path_factory) -> Path:
    """The same model's archive, with the weights of every backend; needs torch."""
    folder = tmp_path_factory.mktemp("tiny_torch")
    tiny_archive_files.write_export(folder / "export", BACKENDS)
    return tiny_archive_files.write_archive(folder / "vinegrape.mar", folder / "export")


@pytest.fixture(scope="session")
def server(archive, tmp_path_factory) -> Iterator[Live]:
    """The committed model, as `make serve` serves it, with one worker."""
    with serving(archive, tmp_path_factory.mktemp("server") / "log") as live:
        yield live
