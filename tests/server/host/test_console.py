import subprocess
import sys
from pathlib import Path

_WRITER = """
import sys
from vinegrape_server.host.console import write_console

for _ in range(3):
    write_console("line\\n", sys.stdout)
print("finished", file=sys.stderr)
"""


def test_text_is_written():
    assert subprocess.run([sys.executable, "-c", _WRITER], capture_output=True).stdout == b"line\n" * 3


def test_a_write_error_is_ignored_also_at_exit():
    """Python flushes standard output at exit, which would fail again."""
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([sys.executable, "-c", _WRITER], stdout=full, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (0, b"finished\n")
