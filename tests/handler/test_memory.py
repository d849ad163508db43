"""Page faults of a process that frees and reallocates blocks, with and without `retain_freed_memory`.

Ratios are compared, because a kernel that uses huge pages counts fewer faults in all cases.
"""

import subprocess
import sys

import pytest

ROUNDS = 8

# Each round takes new pages from the kernel, unless the pages of the previous round were kept.
PROGRAM = f"""
import resource, sys
from vinegrape_handler.memory import retain_freed_memory
scope, mib = sys.argv[1], int(sys.argv[2])
if scope != "default":
    assert retain_freed_memory(scope)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    blocks = [b"x" * (mib * 2**20) for _ in range(2)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

pytestmark = [
    pytest.mark.xdist_group("timing"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is a function of glibc on Linux"),
]


def page_faults(scope: str, mib: int) -> int:
    command = [sys.executable, "-c", PROGRAM, scope, str(mib)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def test_training_reuses_large_blocks():
    assert page_faults("default", 40) > 5 * page_faults("training", 40)


def test_a_worker_reuses_small_blocks():
    assert page_faults("default", 8) > 5 * page_faults("worker", 8)


def test_a_worker_returns_large_blocks():
    assert page_faults("worker", 40) > 5 * page_faults("training", 40)
