"""`metadata.json`: the description of a model. The export writes it once; training and serving read it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from vinegrape_handler.errors import ArchiveError
from vinegrape_handler.reference import Reference
from vinegrape_handler.weights import Backend

FORMAT_VERSION = 1
METADATA_FILE = "metadata.json"
SELF_CHECK_FOLDER = "self_check"

Interpolation = Literal["bilinear", "bicubic"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)

InitialWeights = Literal["none", "hub", "file"]


@dataclass(frozen=True)
class SelfCheck:
    """One image in the archive, with the probabilities that the model computed for it at export.

    Attributes:
        file: the image's file name in the archive's folder `self_check/`.
        probabilities: per backend, one probability per class, in the order of `Metadata.classes`.
    """

    file: str
    probabilities: dict[Backend, list[float]]


@dataclass(frozen=True)
class Metadata:
    """The description of one model, including its preprocessing.

    Attributes:
        name: name of the model, as in `POST /predictions/NAME`.
        version: digest of the archive's content.
        architecture: name of the network in timm.
        classes: in the order of the network's outputs.
        input_size: pixels per side of the network's square input.
        interpolation: the filter for resizing images.
        temperature: the exported graph divides the logits by this number.
        initial_weights: where training started: random weights, timm's hub, or a file.
        data_digest: sha256 over the training images, see `vinegrape_training.data.dataset`.
        metrics: results measured at training and export, by name.
        libraries: versions of the libraries that produced the weights.
        self_check: images with known probabilities.
        ood_threshold: the model knows an image whose OOD score is at most this number. None if it knows every image.
        reference: what predictions and images looked like when the model was made. None if drift is not measured.
        format_version: version of this file format.

    Raises:
        ArchiveError: a value is invalid.
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
    ood_threshold: float | None = None
    reference: Reference | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ArchiveError(
                f"The model's classes are {list(self.classes)}; there must be at least two, all different."
            )
        if self.input_size < 1:
            raise ArchiveError(f"The model's input_size is {self.input_size}; it must be at least 1 pixel.")
        if self.interpolation not in INTERPOLATIONS:
            raise ArchiveError(
                f"The model's interpolation is {self.interpolation!r}; it must be one of {', '.join(INTERPOLATIONS)}."
            )
        if self.temperature <= 0:
            raise ArchiveError(f"The model's temperature is {self.temperature}; it must be above 0.")

    def to_json(self) -> str:
        """Return the file's text. Keys are sorted, so the same model always gives the same bytes."""
        values = dataclasses.asdict(self)
        for name in ("ood_threshold", "reference"):
            if values[name] is None:  # versions of vinegrape without this field can read the file then
                del values[name]
        return json.dumps(values, indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Metadata:
        """Parse the file's text.

        Raises:
            ArchiveError: the text is not metadata, has another format version, or contains invalid values.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            version = values["format_version"]
            if version == FORMAT_VERSION:  # another version may have other fields
                values["classes"] = tuple(values["classes"])
                values["self_check"] = tuple(SelfCheck(**check) for check in values["self_check"])
                if "reference" in values:
                    values["reference"] = Reference.from_json(values["reference"])
                return cls(**values)
        except (ValueError, KeyError, TypeError) as error:
            raise ArchiveError(f"{METADATA_FILE} is not the metadata of a vinegrape model: {error!r}.") from error
        raise ArchiveError(
            f"{METADATA_FILE} has format_version {version}; this code reads {FORMAT_VERSION}. "
            "Export the model again with this version of vinegrape, or serve it with the version that exported it."
        )

    @classmethod
    def read(cls, folder: Path) -> Metadata:
        """Read `metadata.json` from a folder: an export or an unpacked archive.

        Raises:
            ArchiveError: the file is missing or invalid, see `from_json`.
        """
        path = folder / METADATA_FILE
        if not path.is_file():
            raise ArchiveError(f"{folder} has no {METADATA_FILE}: it is neither an export nor an unpacked archive.")
        return cls.from_json(path.read_bytes())
