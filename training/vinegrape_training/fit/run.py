"""The folder of a training run: its facts (`run.json`) and its weights."""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import safetensors.torch
from omegaconf import OmegaConf
from torch import nn

from vinegrape_handler.errors import ArchiveError
from vinegrape_handler.metadata import InitialWeights, Interpolation
from vinegrape_handler.reference import Reference
from vinegrape_training.data.dataset import Split
from vinegrape_training.errors import RunError
from vinegrape_training.files import atomic_write
from vinegrape_training.models.factory import create_model

RUN_FILE = "run.json"
CONFIG_FILE = "config.yaml"
WEIGHTS_FILE = "weights.safetensors"
TEST_FILE = "test.npz"

_LIBRARIES = ("torch", "torchvision", "timm", "lightning", "numpy", "pillow", "cykooz-resizer")


@dataclass(frozen=True)
class Run:
    """The facts of a run, which are written to `run.json`.

    Attributes:
        folder: folder of the run; not in the file.
        architecture: timm's name.
        classes: class names in the order of the network's outputs.
        input_size: width and height of the network's input, in pixels.
        interpolation: method to resize images.
        mean, std: of each RGB channel, for pixels from 0 to 1.
        temperature: divisor of the logits, fitted on the validation images or by an evaluation; else 1.
        has_ood_score: whether the network has an output "something else", after those of the classes.
        ood_threshold: the model knows an image whose OOD score is at most this number; None without a score.
        data_dir: absolute path of the data set's folder.
        data_digest: `dataset.Dataset.digest` of the data set.
        split: training, validation and test images, as paths relative to `data_dir`.
        metrics: metrics at the end of the training, by name; fractions are 0 to 1.
        libraries: versions of the libraries that made the weights.
        git_commit: commit of the code, None if the code is not in a git checkout.
        git_dirty: whether that checkout had uncommitted changes.
        seed: of split, initialisation, shuffling and augmentation.
        reference: for drift, as `Report.reference`. None without an evaluation.
    """

    folder: Path
    architecture: str
    classes: tuple[str, ...]
    input_size: int
    interpolation: Interpolation
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    temperature: float
    has_ood_score: bool
    ood_threshold: float | None
    data_dir: Path
    data_digest: str
    split: Split
    metrics: dict[str, float]
    libraries: dict[str, str]
    git_commit: str | None
    git_dirty: bool
    seed: int
    reference: Reference | None = None

    def write(self) -> None:
        """Write `run.json` into the run's folder."""
        values = dataclasses.asdict(self)
        del values["folder"]
        values["data_dir"] = str(self.data_dir)
        with atomic_write(self.folder / RUN_FILE) as path:
            path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read the facts of a finished run from its folder.

        Raises:
            RunError: the folder holds no finished run, or `run.json` is not valid for this version.
        """
        path = folder / RUN_FILE
        if not path.is_file():
            raise RunError(f"{folder} has no {RUN_FILE}. Give the folder of a finished training run.")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            for name in ("classes", "mean", "std"):
                values[name] = tuple(values[name])
            values["data_dir"] = Path(values["data_dir"])
            values["split"] = Split(**{part: tuple(paths) for part, paths in values["split"].items()})
            if values.get("reference"):
                values["reference"] = Reference.from_json(values["reference"])
            return cls(folder=folder, **values)
        except (ValueError, KeyError, TypeError, AttributeError, ArchiveError) as error:
            raise RunError(
                f"{path} is not a run that this version of vinegrape can read: {error!r}. Train again."
            ) from error

    @property
    def initial_weights(self) -> InitialWeights:
        """The kind of weights that training started from. The path of a file is left out, because it is local."""
        weights = str(OmegaConf.load(self.folder / CONFIG_FILE).weights)
        return "none" if weights == "none" else "hub" if weights == "imagenet" else "file"

    def load_model(self) -> nn.Module:
        """Load the network with the run's weights, in eval mode, on the CPU.

        Returns:
            Network: normalised float32 [N, 3, S, S] to logits [N, classes], not divided by the temperature. With
            `has_ood_score`, the logits are [N, classes + 1].

        Raises:
            ModelError: the weights are missing or do not fit the architecture.
        """
        weights = str(self.folder / WEIGHTS_FILE)
        outputs = len(self.classes) + self.has_ood_score
        return create_model(self.architecture, outputs, weights, self.input_size).eval()


def write_weights(model: nn.Module, folder: Path) -> None:
    """Write a network's state dict to `weights.safetensors` in a folder."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    safetensors.torch.save_file(state, folder / WEIGHTS_FILE)


def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that influence the weights."""
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}


def git_state() -> tuple[str | None, bool]:
    """Return the commit of this code's git checkout (None without one), and whether it has uncommitted changes."""
    commit = _git("rev-parse", "HEAD")
    return commit, bool(commit and _git("status", "--porcelain"))


def _git(*arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "-C", str(Path(__file__).parent), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - constant arguments
    return result.stdout.strip() if result.returncode == 0 else None
