"""`metadata.json`: all that a model is, beside its weights. Written once, by the export; read by everyone."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from vinegrape_handler.errors import ArchiveError
from vinegrape_handler.weights import Backend

FORMAT_VERSION = 1
METADATA_FILE = "metadata.json"
SELF_CHECK_FOLDER = "self_check"

Interpolation = Literal["bilinear", "bicubic"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)

InitialWeights = Literal["none", "hub", "file"]


@dataclass(frozen=True)
class SelfCheck:
    """One picture that the archive carries, and what the model answered to it when it was exported.

    Attributes:
        file: the picture's name in the archive's folder `self_check/`.
        probabilities: of each class, in the order of `Metadata.classes`, by backend.
    """

    file: str
    probabilities: dict[Backend, list[float]]


@dataclass(frozen=True)
class Metadata:
    """One model.

    Attributes:
        name: the model's name, as in `POST /predictions/NAME`.
        version: made from the archive's content.
        architecture: timm's name.
        classes: in the order of the network's outputs.
        input_size: pixels a side of the network's square input.
        interpolation: how images are resized.
        temperature: what the logits are divided by inside the exported graph.
        initial_weights: what training started from: nothing, timm's hub, or a file.
        data_digest: sha256 over the training folder's images, see `vinegrape_training.data.dataset`.
        metrics: figures measured at training and export, by name.
        libraries: versions that made the weights.
        self_check: pictures with known answers.
    """

    name: str
    version: str
    architecture: str
    classes: tuple[str, ...]
    input_size: int
    interpolation: Interpolation
    temperature: float
    initial_weights: InitialWeights
    data_digest: str
    metrics: dict[str, float]
    libraries: dict[str, str]
    self_check: tuple[SelfCheck, ...] = ()
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ArchiveError(
                f"The model's classes must be at least two, all different; they are {list(self.classes)}."
            )
        if self.input_size < 1:
            raise ArchiveError(f"The model's input_size must be at least 1 pixel; it is {self.input_size}.")
        if self.interpolation not in INTERPOLATIONS:
            raise ArchiveError(
                f"The model's interpolation is {self.interpolation!r}; known are {', '.join(INTERPOLATIONS)}."
            )
        if self.temperature <= 0:
            raise ArchiveError(f"The model's temperature must be above 0; it is {self.temperature}.")

    def to_json(self) -> str:
        """The file's text: keys sorted, so that the same model gives the same bytes."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Metadata:
        """Read the file's text.

        Raises:
            ArchiveError: no such metadata, of another format, or with values that cannot be.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            version = values["format_version"]
            if version == FORMAT_VERSION:  # else the fields may differ, and the version is what to speak of
                values["classes"] = tuple(values["classes"])
                values["self_check"] = tuple(SelfCheck(**check) for check in values["self_check"])
                return cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise ArchiveError(f"{METADATA_FILE} is not the metadata of a vinegrape model: {error!r}.") from error
        raise ArchiveError(
            f"{METADATA_FILE} has format_version {version}; this code reads {FORMAT_VERSION}. "
            "Export the model again with this version of vinegrape, or serve it with the one that made it."
        )

    @classmethod
    def read(cls, folder: Path) -> Metadata:
        """Read `metadata.json` from a folder: an unpacked archive, or an export.

        Raises:
            ArchiveError: as `from_json`, or there is none.
        """
        path = folder / METADATA_FILE
        if not path.is_file():
            raise ArchiveError(f"{folder} has no {METADATA_FILE}: it is neither an export nor an unpacked archive.")
        return cls.from_json(path.read_bytes())
