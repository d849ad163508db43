"""A `vinegrape train` that also records what it trains on and the weights that it ends with.

python tests/support/recorded_training.py RECORD [OVERRIDES]

RECORD is written when training ends, before the weights of the best epoch are loaded: the digests of the training
images in their order, per epoch; the digest of all parameters; the first random number of the training.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from vinegrape_training.data.datamodule import AugmentedDataModule
from vinegrape_training.fit import train
from vinegrape_training.fit.lightning_module import ClassifierModule


def digest(*tensors: Tensor) -> str:
    """The digest of the bytes of tensors."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def record(path: Path) -> None:
    """Record the next training of this process."""
    epochs: list[list[str]] = []
    first: list[float] = []
    augmented = AugmentedDataModule.on_after_batch_transfer

    def on_train_epoch_start(module: ClassifierModule) -> None:
        epochs.append([])
        if not first:
            with torch.random.fork_rng():
                first.append(torch.rand(1).item())

    def on_after_batch_transfer(
        data: AugmentedDataModule, batch: tuple[Tensor, Tensor], dataloader_idx: int
    ) -> tuple[Tensor, Tensor]:
        if data.trainer is not None and data.trainer.training:
            epochs[-1] += [digest(image) for image in batch[0]]
        return augmented(data, batch, dataloader_idx)

    def on_train_end(module: ClassifierModule) -> None:
        parameters = digest(*module.parameters())
        path.write_text(json.dumps({"epochs": epochs, "parameters": parameters, "random": first[0]}))

    ClassifierModule.on_train_epoch_start = on_train_epoch_start  # type: ignore[method-assign]
    ClassifierModule.on_train_end = on_train_end  # type: ignore[method-assign]
    AugmentedDataModule.on_after_batch_transfer = on_after_batch_transfer  # type: ignore[method-assign]


if __name__ == "__main__":
    record(Path(sys.argv.pop(1)))
    train.main()
