from __future__ import annotations

import subprocess
import sys

import pytest

ROUNDS = 8

# Each round takes fresh pages from the system, unless those of the round before were kept
PROGRAM = f"""
import resource, sys
from vinegrape_handler.memory import retain_freed_memory
kind, mib = sys.argv[1], int(sys.argv[2])
if kind != "leave":
    assert retain_freed_memory("training" if kind == "all" else "worker")
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    blocks = [b"x" * (mib * 2**20) for _ in range(4)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="glibc's malloc is Linux's; there is nothing to set"
)


def faults(kind: str, mib: int) -> int:
    command = [sys.executable, "-c", PROGRAM, kind, str(mib)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


# in ratio: where the system hands out huge pages, both counts are smaller
def test_freed_memory_is_used_again() -> None:
    assert faults("leave", 64) > 5 * faults("all", 64)


def test_a_worker_uses_the_memory_of_small_pictures_again() -> None:
    assert faults("leave", 8) > 5 * faults("some", 8)


def test_a_worker_gives_the_memory_of_large_pictures_back() -> None:
    assert faults("some", 64) > 5 * faults("all", 64)
