"""Settings of the whole process that trains."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from types import FrameType

import torch

from vinegrape_handler.memory import retain_freed_memory

_IRRELEVANT_WARNINGS = (
    r".*treespec, LeafSpec.*",  # how Lightning itself calls torch
    r".*module\(s\) in eval mode at the start of training.*",  # frozen stages are in eval mode on purpose
    r".*IterableDataset.* has `__len__` defined.*",  # that of shards counts the batches of all workers
    r".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
)

SIGTERM_STATUS = 128 + signal.SIGTERM
"""Exit code after SIGTERM, as a shell reports it for a program without a handler."""


def prepare_process() -> None:
    """Set log levels, warning filters, memory management and the handler of SIGTERM for training.

    Programs call this once at start. Functions such as `train` do not, because these settings would also affect code
    that imports them. None of the settings changes a result.
    """
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # else it prints tips and hardware in every run
    for message in _IRRELEVANT_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    retain_freed_memory("training")
    # Deterministic algorithms also fill new tensors, in case they are read before they are written.
    # This takes a sixth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # the first process of a container would ignore SIGTERM without a handler
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    """Exit. Files are complete or absent, so nothing has to be saved."""
    print("Stopped by SIGTERM; the same command continues.", file=sys.stderr)  # noqa: T201
    raise SystemExit(SIGTERM_STATUS)
