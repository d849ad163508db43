from __future__ import annotations

import subprocess
import sys

import pytest

ROUNDS, PAGES = 20, 16384  # blocks of 64 MB: up to half of that, glibc learns by itself

# Each round takes fresh pages from the system, unless those of the round before were kept
PROGRAM = f"""
import resource, sys
from vinegrape_training.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    b"x" * ({PAGES} * resource.getpagesize())
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str) -> int:
    command = [sys.executable, "-c", PROGRAM, word]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc is Linux's; there is nothing to set")
def test_freed_memory_is_used_again() -> None:
    # in ratio: where the system hands out huge pages, both counts are smaller
    assert faults("leave") > 5 * faults("keep")
