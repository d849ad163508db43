import subprocess
import sys
from pathlib import Path

_SPEAKER = """
import sys
from vinegrape_server.host.console import say

for _ in range(3):
    say("word\\n", sys.stdout)
print("on", file=sys.stderr)
"""


def test_words_are_written_at_once():
    assert subprocess.run([sys.executable, "-c", _SPEAKER], capture_output=True).stdout == b"word\n" * 3


def test_nobody_who_listens_is_no_error():
    """Nor at exit, when Python empties its buffers."""
    with Path("/dev/full").open("w") as full:
        result = subprocess.run([sys.executable, "-c", _SPEAKER], stdout=full, stderr=subprocess.PIPE)
    assert (result.returncode, result.stderr) == (0, b"on\n")
