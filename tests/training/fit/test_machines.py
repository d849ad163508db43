from __future__ import annotations

import json

import pytest

from vinegrape_handler.errors import SettingError
from vinegrape_training.fit.machines import Machine, find_machine

FIRST = {"MASTER_ADDR": "first.local", "MASTER_PORT": "29400"}
TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "1",
    "LOCAL_RANK": "1",
}
POOLS = {"workerpool0": ["a-0:2222"], "workerpool1": ["b-0:2222", "b-1:2222"], "workerpool2": ["c-0:2222"]}


def vertex(pool: str = "workerpool0", index: object = 0, pools: object = POOLS) -> dict[str, str]:
    """The variables of a machine of Vertex AI; RANK and WORLD_SIZE, which it sets for some containers, are wrong."""
    spec = {"cluster": pools, "environment": "cloud", "task": {"type": pool, "index": index, "trial": ""}, "job": "{}"}
    return {"CLUSTER_SPEC": json.dumps(spec), "RANK": "7", "WORLD_SIZE": "9"}


@pytest.mark.parametrize(
    ("count", "devices", "environment", "expected"),
    [
        pytest.param(1, 1, {}, Machine(), id="one"),
        pytest.param(1, 2, {"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, Machine(local_rank=1), id="started-by-lightning"),
        pytest.param(1, 1, {"JOB_COMPLETION_INDEX": "3"}, Machine(), id="one-of-an-indexed-job"),
        pytest.param(1, 1, {"WORLD_SIZE": "1", "RANK": "0"}, Machine(), id="one-by-rank"),
        pytest.param(2, 2, TORCHRUN, Machine(2, 1, 1), id="torchrun"),
        pytest.param(2, "auto", TORCHRUN, Machine(2, 1, 1), id="torchrun-auto"),
        pytest.param(2, 1, {**FIRST, "NODE_RANK": "1"}, Machine(2, 1, 0, "first.local", 29400), id="node-rank"),
        pytest.param(
            3, 2, {**FIRST, "RANK": "2", "WORLD_SIZE": "3"}, Machine(3, 2, 0, "first.local", 29400), id="rank"
        ),
        pytest.param(
            2, 2, {**FIRST, "NODE_RANK": "1", "WORLD_SIZE": "4"}, Machine(2, 1, 0, "first.local", 29400), id="processes"
        ),
        pytest.param(
            2,
            1,
            {**FIRST, "JOB_COMPLETION_INDEX": "1", "NODE_RANK": "1"},
            Machine(2, 1, 0, "first.local", 29400),
            id="indexed-job",
        ),
        pytest.param(3, 1, vertex(), Machine(3, 0, 0, "a-0", 2222), id="vertex-first"),
        pytest.param(3, 1, vertex("workerpool1", 0), Machine(3, 1, 0, "a-0", 2222), id="vertex-second"),
        pytest.param(3, 1, vertex("workerpool1", "1"), Machine(3, 2, 0, "a-0", 2222), id="vertex-third"),
        pytest.param(
            3,
            2,
            {**vertex("workerpool1"), "LOCAL_RANK": "1"},
            Machine(3, 1, 1, "a-0", 2222),
            id="vertex-second-process",
        ),
        pytest.param(
            1, 1, vertex(pools={"workerpool0": ["a-0:2222"]}), Machine(1, 0, 0, "a-0", 2222), id="vertex-alone"
        ),
    ],
)
def test_the_environment_says_which_machine_this_is(
    count: int, devices: object, environment: dict[str, str], expected: Machine
) -> None:
    assert find_machine(count, devices, environment) == expected


@pytest.mark.parametrize(
    ("count", "devices", "environment", "message"),
    [
        (
            2,
            1,
            {},
            "trainer.num_nodes is 2, but the environment has no MASTER_ADDR and no MASTER_PORT and no NODE_RANK",
        ),
        (2, 1, {**FIRST, "MASTER_ADDR": "", "RANK": "0"}, "has no MASTER_ADDR. Set MASTER_ADDR and MASTER_PORT to the"),
        (2, 1, FIRST, "has no NODE_RANK. .* the number of this machine, from 0 to 1"),
        (2, 1, {**FIRST, "NODE_RANK": "one"}, "NODE_RANK is 'one'; it must be a whole number from 0 to 1"),
        (2, 1, {**FIRST, "NODE_RANK": "-1"}, "NODE_RANK is '-1'"),
        (2, 1, {**FIRST, "JOB_COMPLETION_INDEX": "2"}, "JOB_COMPLETION_INDEX is '2'; .* from 0 to 1"),
        (2, 1, {**FIRST, "NODE_RANK": "0", "MASTER_PORT": "70000"}, "MASTER_PORT is '70000'; .* from 0 to 65535"),
        (2, 1, {**FIRST, "NODE_RANK": "0", "RANK": "1"}, "in several ways which machine this is: NODE_RANK=0, RANK=1"),
        (2, 1, {**FIRST, "NODE_RANK": "0", "WORLD_SIZE": "3"}, "WORLD_SIZE is 3, but trainer.num_nodes is 2"),
        (1, 1, {**FIRST, "RANK": "1", "WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but trainer.num_nodes is 1"),
        (
            2,
            1,
            TORCHRUN,
            r"torchrun started 2 processes on each of 2 machines, but trainer.devices is 1 .* Give trainer",
        ),
        (1, 2, TORCHRUN, "trainer.num_nodes is 1. Give trainer.devices=2 trainer.num_nodes=2"),
        (1, 1, vertex(), "CLUSTER_SPEC lists 3 machines that train, but trainer.num_nodes is 1. Give .*num_nodes=3"),
        (3, 1, vertex("workerpool2"), "this is machine 0 of workerpool2. Only the machines of workerpool0 and workerp"),
        (3, 1, vertex("workerpool1", 2), "this is machine 2 of workerpool1"),
        (
            3,
            1,
            {"CLUSTER_SPEC": "{"},
            "CLUSTER_SPEC is '{', which is not what Vertex AI sets .* It must hold `cluster`",
        ),
        (3, 1, {"CLUSTER_SPEC": "[]"}, "CLUSTER_SPEC is"),
        (3, 1, vertex(pools={}), "CLUSTER_SPEC is"),
        (1, 1, vertex(pools={"workerpool0": ["a-0"]}), "CLUSTER_SPEC is"),
    ],
)
def test_a_missing_or_contradictory_variable_is_named(
    count: int, devices: object, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        find_machine(count, devices, environment)


@pytest.mark.parametrize(("rank", "local_rank", "first"), [(0, 0, True), (0, 1, False), (1, 0, False)])
def test_only_the_first_process_of_the_first_machine_writes(rank: int, local_rank: int, first: bool) -> None:
    assert Machine(2, rank, local_rank, "a", 1).is_first_process is first


def test_lightning_learns_the_machines_unless_it_reads_them_itself() -> None:
    (plugin,) = Machine(2, 1, 0, "first.local", 29400).plugins()
    assert (plugin.main_address, plugin.main_port, plugin.node_rank()) == ("first.local", 29400, 1)
    assert Machine().plugins() == Machine(2, 1, 1).plugins() == []
