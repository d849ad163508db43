"""The machines of a distributed training: which of them this one is, and where the first one listens.

The environment says so, in the variables of torchrun, Vertex AI, an Indexed Job of Kubernetes, or of PyTorch itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from vinegrape_handler.errors import SettingError

_MAX_PORT = 65535
_TRAINING_POOLS = ("workerpool0", "workerpool1")  # of Vertex AI; the others hold servers and evaluators


@dataclass(frozen=True)
class Machine:
    """One machine of a distributed training.

    Attributes:
        count: number of machines.
        rank: number of this machine; the first is 0.
        local_rank: number of this process on its machine.
        address: host name or IP address of the first machine; empty if Lightning finds it.
        port: TCP port on which the first machine listens; 0 if Lightning finds it.
    """

    count: int = 1
    rank: int = 0
    local_rank: int = 0
    address: str = ""
    port: int = 0

    @property
    def is_first_process(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0 and self.local_rank == 0

    def plugins(self) -> list[ClusterEnvironment]:
        """Return the plugin that tells Lightning about the machines, or no plugin if Lightning finds them itself."""
        return [_MachineEnvironment(self)] if self.address else []


class _MachineEnvironment(LightningEnvironment):
    """Starts the processes of one machine as Lightning does by default, but knows the other machines."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self._machine = machine

    @property
    def main_address(self) -> str:
        return self._machine.address

    @property
    def main_port(self) -> int:
        return self._machine.port

    def node_rank(self) -> int:
        return self._machine.rank


def find_machine(count: int, devices: Any, environment: Mapping[str, str] = os.environ) -> Machine:
    """Read from the environment which machine this is.

    The first of these that is there decides:

    - torchrun's variables, which Lightning reads itself;
    - Vertex AI's `CLUSTER_SPEC`;
    - `MASTER_ADDR` and `MASTER_PORT`, with the number of this machine in `NODE_RANK`, in `JOB_COMPLETION_INDEX` (an
      Indexed Job of Kubernetes) or in `RANK`. They are read only if there are several machines.

    Args:
        count: the setting `trainer.num_nodes`.
        devices: the setting `trainer.devices`; a number is compared with the environment.
        environment: the variables.

    Raises:
        SettingError: a variable is missing or invalid, or contradicts another one or the settings.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        return _from_torchrun(count, devices, environment)
    local_rank = _number(environment, "LOCAL_RANK") if "LOCAL_RANK" in environment else 0
    if "CLUSTER_SPEC" in environment:
        return _from_vertex(count, local_rank, environment)
    # in the processes that Lightning starts, WORLD_SIZE counts processes, and RANK is not set
    if "LOCAL_RANK" not in environment:
        _check_world_size(count, devices, environment)
    return _from_variables(count, local_rank, environment) if count > 1 else Machine(local_rank=local_rank)


def _from_torchrun(count: int, devices: Any, environment: Mapping[str, str]) -> Machine:
    processes = _number(environment, "LOCAL_WORLD_SIZE")
    machines = _number(environment, "WORLD_SIZE") // processes
    if machines != count or (isinstance(devices, int) and devices != processes):
        raise SettingError(
            f"torchrun started {processes} processes on each of {machines} machines, but trainer.devices is {devices} "
            f"and trainer.num_nodes is {count}. Give trainer.devices={processes} trainer.num_nodes={machines}."
        )
    return Machine(machines, _number(environment, "GROUP_RANK"), _number(environment, "LOCAL_RANK"))


def _from_vertex(count: int, local_rank: int, environment: Mapping[str, str]) -> Machine:
    """Read CLUSTER_SPEC.

    Vertex AI also sets RANK and others in some containers. CLUSTER_SPEC is in all, so it alone is read.
    """
    text = environment["CLUSTER_SPEC"]
    try:
        spec = json.loads(text)
        pools = {name: list(spec["cluster"].get(name, ())) for name in _TRAINING_POOLS}
        pool, index = str(spec["task"]["type"]), int(spec["task"]["index"])
        addresses = [address for name in _TRAINING_POOLS for address in pools[name]]
        host, _, port = addresses[0].rpartition(":")
        first = Machine(len(addresses), 0, local_rank, host, int(port))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise SettingError(
            f"CLUSTER_SPEC is {text!r}, which is not what Vertex AI sets ({error!r}). It must hold `cluster`, with "
            "host:port of each machine by pool, and `task`, with the type and the index of this machine."
        ) from error
    if pool not in _TRAINING_POOLS or not 0 <= index < len(pools[pool]):
        raise SettingError(
            f"CLUSTER_SPEC says that this is machine {index} of {pool}. Only the machines of "
            f"{' and '.join(_TRAINING_POOLS)} train: leave the other pools out of the job."
        )
    if first.count != count:
        raise SettingError(
            f"CLUSTER_SPEC lists {first.count} machines that train, but trainer.num_nodes is {count}. "
            f"Give trainer.num_nodes={first.count}."
        )
    rank = index + (len(pools["workerpool0"]) if pool == "workerpool1" else 0)
    return Machine(count, rank, local_rank, first.address, first.port)


def _from_variables(count: int, local_rank: int, environment: Mapping[str, str]) -> Machine:
    ranks = {
        name: _number(environment, name, count - 1)
        for name in ("NODE_RANK", "JOB_COMPLETION_INDEX", "RANK")
        if name in environment
    }
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
    if not ranks:
        missing.append("NODE_RANK")
    if missing:
        raise SettingError(
            f"trainer.num_nodes is {count}, but the environment has no {' and no '.join(missing)}. Set MASTER_ADDR and "
            "MASTER_PORT to the host name and a free TCP port of the first machine, and NODE_RANK to the number of "
            f"this machine, from 0 to {count - 1}."
        )
    if len(set(ranks.values())) > 1:
        values = ", ".join(f"{name}={rank}" for name, rank in ranks.items())
        raise SettingError(f"The environment says in several ways which machine this is: {values}. Keep one of them.")
    port = _number(environment, "MASTER_PORT", _MAX_PORT)
    return Machine(count, next(iter(ranks.values())), local_rank, environment["MASTER_ADDR"], port)


def _check_world_size(count: int, devices: Any, environment: Mapping[str, str]) -> None:
    """Check that WORLD_SIZE, if it is set, is the number of machines or of processes."""
    if "WORLD_SIZE" not in environment:
        return
    size, processes = _number(environment, "WORLD_SIZE"), devices if isinstance(devices, int) else 1
    if size not in (count, count * processes):
        raise SettingError(
            f"WORLD_SIZE is {size}, but trainer.num_nodes is {count} and trainer.devices is {devices}. Give the number "
            "of machines as trainer.num_nodes, or remove WORLD_SIZE from the environment."
        )


def _number(environment: Mapping[str, str], name: str, most: int | None = None) -> int:
    """Read a whole number from 0 to `most`."""
    text = environment.get(name, "")
    if not text.isdecimal() or (most is not None and int(text) > most):
        limit = "from 0" if most is None else f"from 0 to {most}"
        raise SettingError(f"{name} is {text!r}; it must be a whole number {limit}.")
    return int(text)
