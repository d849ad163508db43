"""Two processes train one model over a network: in two network namespaces, or else at two addresses of the loopback."""

from __future__ import annotations

import csv
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import ROOT
from tests.support.pages import blocks
from tests.support.processes import running
from tests.support.small_config import SMALL
from vinegrape_training.data import drawn_leaves
from vinegrape_training.fit.run import Run

pytestmark = [pytest.mark.trains, pytest.mark.xdist_group("two_machines")]

PROGRAM = [sys.executable, str(ROOT / "tests" / "support" / "recorded_training.py")]
LIMIT_S = 240


class Host(NamedTuple):
    """Where a process runs: the words before its command, its network interface, and its address."""

    prefix: list[str]
    interface: str
    address: str


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[Host]]:
    """Two network namespaces that are connected by a cable, or the loopback if this process may not make them."""
    names = [f"vg{os.getpid()}{letter}" for letter in "ab"]
    addresses = ["10.231.77.1", "10.231.77.2"]
    with ExitStack() as stack:

        def ip(*arguments: str) -> None:
            subprocess.run(["ip", *arguments], check=True, capture_output=True)

        try:
            for name in names:
                ip("netns", "add", name)
                stack.callback(ip, "netns", "delete", name)
            ip("link", "add", f"{names[0]}0", "netns", names[0], "type", "veth",
               "peer", f"{names[1]}0", "netns", names[1])  # fmt: skip
            for name, address in zip(names, addresses, strict=True):
                ip("-n", name, "address", "add", f"{address}/30", "dev", f"{name}0")
                ip("-n", name, "link", "set", f"{name}0", "up")
                ip("-n", name, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError):
            yield [Host([], "lo", "127.0.0.1"), Host([], "lo", "127.0.0.2")]
        else:
            yield [
                Host([shutil.which("ip") or "", "netns", "exec", name], f"{name}0", address)
                for name, address in zip(names, addresses, strict=True)
            ]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        port: int = listener.getsockname()[1]
        return port


def kubernetes(host: str, port: int, rank: int) -> dict[str, str]:
    """The variables of a pod of an Indexed Job."""
    return {"MASTER_ADDR": host, "MASTER_PORT": str(port), "JOB_COMPLETION_INDEX": str(rank)}


def vertex(host: str, port: int, rank: int) -> dict[str, str]:
    """The variable of a machine of a custom job of Vertex AI."""
    pools = {"workerpool0": [f"{host}:{port}"], "workerpool1": [f"second:{port}"]}
    return {"CLUSTER_SPEC": json.dumps({"cluster": pools, "task": {"type": f"workerpool{rank}", "index": 0}})}


def by_hand(host: str, port: int, rank: int) -> dict[str, str]:
    """The variables that a user sets."""
    return {"MASTER_ADDR": host, "MASTER_PORT": str(port), "NODE_RANK": str(rank)}


class Machines:
    """Starts the two processes of a training, each in a folder of its own.

    Args:
        hosts: where they run.
        folder: holds one folder per process.
        stack: ends the processes.
    """

    def __init__(self, hosts: list[Host], folder: Path, stack: ExitStack) -> None:
        self.folders = [folder / "first", folder / "second"]
        self._hosts, self._stack, self._port = hosts, stack, free_port()

    def start(self, rank: int, variables, *overrides: str) -> subprocess.Popen[str]:  # type: ignore[no-untyped-def]
        host, folder = self._hosts[rank], self.folders[rank]
        folder.mkdir()
        words = [*PROGRAM, str(folder / "record.json"), *SMALL, "trainer.num_nodes=2", f"run_dir={folder / 'run'}"]
        environment = {
            **os.environ,
            **variables(self._hosts[0].address, self._port, rank),
            "GLOO_SOCKET_IFNAME": host.interface,  # the name of this host may belong to another interface
            "PYTHONPATH": str(ROOT),
        }
        log = self._stack.enter_context((folder / "log").open("w"))
        return self._stack.enter_context(
            running([*host.prefix, *words, *overrides], env=environment, stdout=log, stderr=subprocess.STDOUT)
        )

    def log(self, rank: int) -> str:
        return (self.folders[rank] / "log").read_text()


@pytest.fixture
def machines(hosts: list[Host], tmp_path: Path) -> Iterator[Machines]:
    with ExitStack() as stack:
        yield Machines(hosts, tmp_path, stack)


def losses(run: Path) -> list[float]:
    """The training loss of each epoch."""
    rows = csv.DictReader((run / "logs" / "metrics.csv").open())
    return [float(row["train/loss"]) for row in rows if row["train/loss"]]


@pytest.mark.timeout(600)
def test_two_machines_train_the_model_that_one_trains(
    machines: Machines, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same images per step in both trainings. The second machine cannot see the folder of the first."""
    leaves = tmp_path_factory.mktemp("leaves") / "leaves"
    drawn_leaves.draw_dataset(leaves, images_per_class=20, seed=0, side=64)
    training = (f"data.dir={leaves}", "augmentation=light", "trainer.max_epochs=12", "trainer.patience=12")
    nodes = [machines.start(rank, kubernetes, *training, "data.batch_size=4") for rank in (0, 1)]
    for rank, node in enumerate(nodes):
        assert node.wait(LIMIT_S) == 0, machines.log(rank)
    one = [*PROGRAM, str(tmp_path / "one.json"), *SMALL, *training, "data.batch_size=8", f"run_dir={tmp_path / 'one'}"]
    subprocess.run(one, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=LIMIT_S)

    first, second = (json.loads((folder / "record.json").read_text()) for folder in machines.folders)
    assert first["parameters"] == second["parameters"]
    assert first["random"] != second["random"]
    alone = json.loads((tmp_path / "one.json").read_text())
    for ours, theirs, all_images in zip(first["epochs"], second["epochs"], alone["epochs"], strict=True):
        assert len(ours) == len(theirs) == len(all_images) / 2 == 32  # 65 images train, 64 in full batches
        assert not set(ours) & set(theirs)
    assert first["epochs"][0] != first["epochs"][1]

    run, run_of_one = Run.read(machines.folders[0] / "run"), Run.read(tmp_path / "one")
    assert run.split == run_of_one.split
    for metric in ("validation_accuracy", "test_accuracy"):
        assert run.metrics[metric] == pytest.approx(run_of_one.metrics[metric], abs=0.11)  # two of 20 images
        assert run.metrics[metric] >= 0.8
    both, single = losses(machines.folders[0] / "run"), losses(tmp_path / "one")
    assert both[-1] == pytest.approx(single[-1], abs=0.3)
    assert both[0] - both[-1] > 0.3

    assert sorted(path.name for path in machines.folders[1].iterdir()) == ["log", "record.json"]
    assert "test accuracy" in machines.log(0)
    assert "test accuracy" not in machines.log(1)


@pytest.mark.parametrize(
    ("variables", "number"), [(vertex, signal.SIGKILL), (by_hand, signal.SIGSTOP)], ids=["ends", "is-silent"]
)
def test_a_machine_that_fails_ends_the_training_of_the_other(
    variables, number: signal.Signals, drawn: Path, machines: Machines
) -> None:
    endless = (f"data.dir={drawn}", "trainer.max_epochs=100000", "trainer.patience=100000", "data.batch_size=4")
    first, second = (machines.start(rank, variables, *endless, "trainer.timeout_s=10") for rank in (0, 1))
    checkpoint = machines.folders[0] / "run" / "checkpoints" / "best.ckpt"
    limit = time.monotonic() + LIMIT_S
    while not checkpoint.exists():
        assert (first.poll(), second.poll()) == (None, None), machines.log(0) + machines.log(1)
        assert time.monotonic() < limit
        time.sleep(0.1)
    second.send_signal(number)
    assert first.wait(LIMIT_S) == 1, machines.log(0)
    second.kill()
    assert not (machines.folders[0] / "run" / "run.json").exists()


def test_a_machine_does_not_wait_for_ever_for_the_first(drawn: Path, machines: Machines) -> None:
    alone = machines.start(1, by_hand, f"data.dir={drawn}", "trainer.timeout_s=3")
    assert alone.wait(LIMIT_S) == 1
    assert "DistNetworkError" in machines.log(1)


def documented(word: str) -> str:
    """The only shell block of docs/training.md that contains a word."""
    found = [block.text for block in blocks(ROOT / "docs" / "training.md") if word in block.text]
    (text,) = found
    return text


@pytest.mark.parametrize(
    "word",
    ["export NODE_RANK=0", pytest.param("torchrun --nnodes", marks=pytest.mark.nightly)],
    ids=["own", "torchrun"],
)
def test_the_documented_commands_train_on_two_machines(
    word: str, hosts: list[Host], drawn: Path, tmp_path: Path
) -> None:
    """On the first machine, and with its number on the second."""
    small = shlex.join([*SMALL, "debug=smoke", "input_size=32", "data.batch_size=4"])
    port = free_port()
    with ExitStack() as stack:
        machines = []
        for rank, host in enumerate(hosts):
            text = documented(word).rstrip()
            for old, new in {
                "192.0.2.10": hosts[0].address,
                "29400": str(port),
                "data/grapevine_leaves": str(drawn),
                ".venv/bin/": f"{Path(sys.executable).parent}/",
                "NODE_RANK=0": f"NODE_RANK={rank}",
                "node-rank=0": f"node-rank={rank}",
            }.items():
                text = text.replace(old, new)
            folder = tmp_path / str(rank)
            folder.mkdir()
            environment = os.environ | {"GLOO_SOCKET_IFNAME": host.interface}
            command = [*host.prefix, "bash", "-euc", f"{text} {small}"]
            machines.append(stack.enter_context(running(command, cwd=folder, env=environment)))
        assert [machine.wait(LIMIT_S) for machine in machines] == [0, 0]
    assert Run.read(tmp_path / "0" / "runs" / "two").metrics["epochs"] == 1
    assert not list((tmp_path / "1").iterdir())
