"""Run a command of `vinegrape` that kills itself with SIGKILL at a certain place of a training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run_killed(place: str, *arguments: object) -> None:
    """Run `vinegrape ARGUMENTS` in its own process until it is killed.

    Args:
        place: "step N": before the training step with this number, from 0; "measure": after the last epoch, before the
            network is measured; "write": before the files of the finished run are written.
        arguments: of the command.
    """
    command = [sys.executable, "-m", "tests.support.killed_training", place, *map(str, arguments)]
    # with this variable, W&B in the process would use the service of this one, which would survive
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGKILL, f"exit code {result.returncode}: {result.stderr}"


def _kill(*_arguments: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_before_step(number: int, step: Callable[..., Any]) -> Callable[..., Any]:
    def training_step(self: Any, *arguments: Any) -> Any:
        return _kill() if self.global_step == number else step(self, *arguments)

    return training_step


def main() -> None:
    """Replace the function at the place by one that kills this process, and run the command."""
    from vinegrape_cli.main import main as vinegrape
    from vinegrape_training.fit import train
    from vinegrape_training.fit.lightning_module import ClassifierModule

    place, _, number = sys.argv[1].partition(" ")
    if place == "step":
        ClassifierModule.training_step = _kill_before_step(int(number), ClassifierModule.training_step)  # type: ignore[method-assign]
    else:
        setattr(train, {"measure": "_measure", "write": "_write"}[place], _kill)
    sys.argv = ["vinegrape", *sys.argv[2:]]
    vinegrape()


if __name__ == "__main__":
    main()
