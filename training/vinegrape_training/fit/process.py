"""Settings of the whole process that trains."""

from __future__ import annotations

import logging
import warnings

import torch

from vinegrape_handler.memory import retain_freed_memory

_IRRELEVANT_WARNINGS = (
    r".*treespec, LeafSpec.*",  # how Lightning itself calls torch
    r".*module\(s\) in eval mode at the start of training.*",  # frozen stages are in eval mode on purpose
    r".*IterableDataset.* has `__len__` defined.*",  # that of shards counts the batches of all workers
)


def prepare_process() -> None:
    """Set log levels, warning filters and memory management for training.

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
