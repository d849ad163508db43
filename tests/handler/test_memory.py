"""Memory of real processes.

Page faults are compared as ratios, because a kernel that uses huge pages counts fewer faults in all cases.
"""

import json
import subprocess
import sys

import pytest
from PIL import Image

from tests.support.images import encode

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


# The limit of the process in MB, then the result of each allocation
LIMITED = """
import json, sys
from vinegrape_handler.memory import data_bytes, limit_memory
from vinegrape_handler.settings import WorkerSettings
batch_size, network_mb, sizes, settings = json.loads(sys.argv[1])
used = data_bytes()
results = [(limit_memory(WorkerSettings(**settings), batch_size, network_mb * 10**6) - used) // 10**6]
for size in sizes:
    try:
        results.append(len(bytearray(size * 10**6)))
    except MemoryError:
        results.append("MemoryError")
print(json.dumps(results))
"""


def limited(batch_size=1, network_mb=0, sizes=(), **settings) -> list:
    arguments = json.dumps([batch_size, network_mb, sizes, settings])
    result = subprocess.run([sys.executable, "-c", LIMITED, arguments], capture_output=True, text=True, timeout=60)
    if result.returncode:
        raise RuntimeError(result.stderr.splitlines()[-1])
    return json.loads(result.stdout)


def test_the_automatic_limit_grows_with_the_largest_request():
    small = {"max_image_pixels": 10**6, "max_image_bytes": 10**6}
    assert limited(**small) == [128 + 14 + int(1.5 * 3)]
    assert limited(batch_size=4, **small) == [128 + 14 + int(1.5 * 9)]
    assert limited(**small, decode_threads=3) == [128 + 3 * 14 + int(1.5 * 3)]
    assert limited(network_mb=100, **small) == [100 + 128 + 14 + int(1.5 * 3)]


def test_more_memory_than_the_limit_is_a_memory_error_and_the_process_goes_on():
    limit, *results = limited(sizes=[2000, 800, 1000, 800])
    assert limit == 128 + 14 * 50 + 3 * 30
    assert results == ["MemoryError", 8 * 10**8, "MemoryError", 8 * 10**8]


def test_the_limit_can_be_set():
    _, *results = limited(worker_memory_mb=500, sizes=[500, 200])
    assert results == ["MemoryError", 2 * 10**8]


def test_a_limit_that_is_too_small_is_reported():
    with pytest.raises(RuntimeError, match=r"worker_memory_mb is 300, .* Set it to at least \d{3}"):
        limited(worker_memory_mb=300, network_mb=300)


def test_a_lower_limit_of_the_system_is_kept():
    code = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (900 * 10**6,) * 2)\n" + LIMITED
    arguments = json.dumps([1, 0, [1000, 100], {}])
    result = subprocess.run([sys.executable, "-c", code, arguments], capture_output=True, text=True, timeout=60)
    limit, *results = json.loads(result.stdout)
    assert limit < 900
    assert results == ["MemoryError", 10**8]


# Decodes a progressive JPEG of 50 megapixels with an amount of free memory, in MB
DECODE = """
import resource, sys
from pathlib import Path
from vinegrape_handler.images.decode import Limits, decode
from vinegrape_handler.memory import data_bytes
data = Path(sys.argv[1]).read_bytes()
limit = data_bytes() + int(sys.argv[2]) * 10**6
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
try:
    print(decode(data, Limits(10**7, 5 * 10**7), 16).size)
except BaseException as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(
    ("free_mb", "cut", "expected"), [(300, 0, "(884, 884)"), (60, 0, "MemoryError"), (900, 100, "BrokenImage")]
)
def test_a_progressive_jpeg_needs_memory_for_the_pixels_before_scaling(tmp_path, free_mb, cut, expected):
    """libjpeg needs 100 MB for 50 megapixels of grey, and reports missing memory like damage."""
    data = encode(Image.new("L", (7071, 7071)), "JPEG", progressive=True)
    file = tmp_path / "image.jpg"
    file.write_bytes(data[: len(data) - cut])
    command = [sys.executable, "-c", DECODE, str(file), str(free_mb)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == expected
