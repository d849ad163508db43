"""Run the shell blocks of a documentation page with stand-ins for the programs that act outside the machine."""

import shutil
import subprocess
from pathlib import Path

from tests.support.pages import ROOT, blocks

DIGEST = "sha256:" + "0123456789abcdef" * 4

KEY = "0123456789abcdef" * 4

# Records its name and arguments, each followed by NUL, and then a line feed. Prints the digest and the random key that
# the pages read. `kubectl kustomize` is real: it only reads files.
STAND_IN = f"""#!/bin/bash
printf '%s\\0' "${{0##*/}}" "$@" $'\\n' >> "$RECORD"
case "${{0##*/}} $*" in
*image_summary.digest*) echo {DIGEST} ;;
"openssl rand"*) echo {KEY} ;;
"kubectl kustomize "*) exec {shutil.which("kubectl")} "$@" ;;
esac
"""
STAND_INS = ("chmod", "curl", "docker", "gcloud", "git", "kubectl", "make", "openssl")
# The only real programs that the blocks can run
PROGRAMS = ("bash", "cat", "cut", "id", "mkdir", "sed")


def scripts(page: str, until: str | None = None) -> list[str]:
    """The shell blocks of a page of docs/, up to the heading `until`."""
    return [block.text for block in blocks(ROOT / "docs" / page, until) if (block.language, block.tag) == ("sh", "")]


def run(shell_blocks: list[str], folder: Path) -> list[list[str]]:
    """Run shell blocks in a folder, as one script.

    A program that is neither a stand-in nor in PROGRAMS is not found, so no block can change anything outside `folder`.

    Returns:
        The commands that the stand-ins recorded: program and arguments, with variables replaced by their values.
    """
    programs, record = folder / ".programs", folder / ".record"
    programs.mkdir()
    record.touch()
    for name in STAND_INS:
        (programs / name).write_text(STAND_IN)
        (programs / name).chmod(0o755)
    for name in PROGRAMS:
        (programs / name).symlink_to(shutil.which(name))
    script = "set -euo pipefail\n" + "\n".join(shell_blocks)
    environment = {"PATH": str(programs), "RECORD": str(record)}
    result = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    commands = record.read_text().split("\0\n\0")
    return [command.split("\0") for command in commands if command]
