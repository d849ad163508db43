from __future__ import annotations

import subprocess
import sys

CODE = """
import logging, torch, warnings
from vinegrape_training.fit.process import prepare_process
prepare_process()
warnings.warn("Found 3 module(s) in eval mode at the start of training.")
print(logging.getLogger("lightning.pytorch").level == logging.WARNING)
print(torch.utils.deterministic.fill_uninitialized_memory)
"""


def test_a_program_gets_no_irrelevant_messages_and_no_filled_tensors() -> None:
    """In a separate process, because the settings apply to the whole process."""
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False"]
    assert "eval mode" not in result.stderr
