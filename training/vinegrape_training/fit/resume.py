"""Continue an interrupted run after its last complete epoch."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from omegaconf import DictConfig, OmegaConf

from vinegrape_handler.errors import SettingError
from vinegrape_training.fit.recipe import differences
from vinegrape_training.fit.run import CONFIG_FILE

CHECKPOINTS_FOLDER = "checkpoints"
LAST_FILE = "last.ckpt"

_KEY = "vinegrape"  # of our own state in a checkpoint


def last_checkpoint(folder: Path) -> Path:
    """Return the path of a run's checkpoint of its last complete epoch. It exists until the run is finished."""
    return folder / CHECKPOINTS_FOLDER / LAST_FILE


def last_epoch(checkpoint: Path) -> int:
    """Return the number of the last complete epoch of an interrupted run, from 0."""
    epoch: int = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["epoch"]
    return epoch


def other_settings(folder: Path, cfg: DictConfig) -> list[str]:
    """List the differences between the configuration of an interrupted run and `cfg`, as `recipe.differences` does."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        return [f"{CONFIG_FILE} is missing"]
    return differences(_values(OmegaConf.load(path)), _values(cfg))


def is_resumable(folder: Path, cfg: DictConfig) -> bool:
    """Return whether the folder holds an interrupted run of this configuration with at least one complete epoch."""
    return last_checkpoint(folder).is_file() and not other_settings(folder, cfg)


def remove_last_checkpoint(folder: Path) -> None:
    """Remove the checkpoint that a finished run does not need."""
    path = last_checkpoint(folder)
    path.unlink(missing_ok=True)
    if path.parent.is_dir() and not any(path.parent.iterdir()):
        path.parent.rmdir()


class LastEpoch(Checkpoint):
    """Saves a checkpoint after each epoch, with all that a resumed run needs to end with the same weights.

    It adds to Lightning's checkpoints what they lack: the states of the random number generators, and whether training
    has stopped early. Lightning calls checkpoint callbacks after all others, so the states of those are complete.

    Attributes:
        path: of the checkpoint. Only a complete file has this name.

    Args:
        path: of the checkpoint.
        inputs: digest of the images and their split. A run cannot continue with others.
    """

    def __init__(self, path: Path, inputs: str) -> None:
        self.path, self._inputs = path, inputs
        self._stopped = False
        self._sigterm_handler = signal.getsignal(signal.SIGTERM)  # the program's; Lightning will set its own

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that all processes continue the same run, and use the path of the first process.

        The default run_dir holds a time, which differs in the others.

        Raises:
            SettingError: the first process continues a run that this one does not see, or the other way round.
        """
        seen: bool = self.path.is_file()
        if trainer.strategy.broadcast(seen) != seen:
            raise SettingError(
                f"Only some machines see the unfinished run in {self.path.parents[1]}. To continue it, give all "
                "machines the same folder; to begin again, remove it."
            )
        self.path = Path(trainer.strategy.broadcast(str(self.path)))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add our own state to a checkpoint."""
        states = [_generator_states()]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            states *= trainer.world_size
            torch.distributed.all_gather_object(states, states[0])
        checkpoint[_KEY] = {"inputs": self._inputs, "stopped": trainer.should_stop, "generators": states}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Check that the run can continue, and restore the random number generators.

        Lightning calls this before it creates the training batches' iterator, which draws the first random number.

        Raises:
            SettingError: the run has other images, another split, or another number of processes.
        """
        state = checkpoint[_KEY]
        folder, processes = self.path.parents[1], len(state["generators"])
        if state["inputs"] != self._inputs:
            raise SettingError(
                f"{folder} holds an unfinished run with other images or another split. Remove it, or give another "
                "folder."
            )
        if processes != trainer.world_size:
            raise SettingError(
                f"{folder} holds an unfinished run of {processes} processes, now there are {trainer.world_size}. "
                "Continue with as many, or give another folder."
            )
        self._stopped = state["stopped"]
        _restore_generators(state["generators"][trainer.global_rank])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once if training has stopped early. Handle SIGTERM as the program does, if it has a handler.

        Lightning's handler only stops after a batch, with exit code 0, and with several processes it waits for
        a message of the first one, which may wait for something else.
        """
        if self._stopped:
            trainer.should_stop = True
        handler, launcher = self._sigterm_handler, trainer.strategy.launcher
        if not callable(handler) or threading.current_thread() is not threading.main_thread():
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if launcher is not None:
                launcher.kill(number)  # the processes that Lightning has started
            handler(number, frame)

        signal.signal(signal.SIGTERM, stop)  # Lightning restores the program's handler after the training

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the checkpoint."""
        if trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}")
        trainer.save_checkpoint(partial, weights_only=False)  # called by all processes, written by the first
        if trainer.is_global_zero:
            partial.replace(self.path)


def _generator_states() -> dict[str, Any]:
    """Return the states of this process's random number generators, as tensors and plain values."""
    numpy_state: Any = np.random.get_state(legacy=True)
    name, keys, *position = numpy_state
    states = {"python": random.getstate(), "numpy": (name, keys.tolist(), *position), "torch": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _restore_generators(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def _values(cfg: Any) -> dict[str, Any]:
    values: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    return values
