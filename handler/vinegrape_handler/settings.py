"""The settings of one worker: each field with its default and its meaning."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vinegrape_handler.errors import SettingError
from vinegrape_handler.fields import ENVIRONMENT_PREFIX, check_at_least, check_choices, read_environment, setting
from vinegrape_handler.weights import Backend

# Maximum images per call of the network. On a GPU it limits the memory. On a CPU the activations of one image take
# about 22 MB (MobileNetV2 at 320 px): a call of 4 images takes as long per image as a call of 1, and a call of 64
# takes 20 % longer per image, because the activations no longer fit the cache.
MAX_BATCH_SIZE = 64
CPU_CALL_SIZE = 4

# Pillow raises its decompression-bomb error above this number of pixels.
PILLOW_MAX_PIXELS = 178_956_970


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker decodes images and runs the network.

    Raises:
        SettingError: a value is invalid, or two values contradict each other.
    """

    backend: Literal["auto", Backend] = setting(
        "auto", "weights to run (auto: torchscript on a GPU, else onnx_int8 or what the archive holds)"
    )
    device: Literal["auto", "cpu", "cuda"] = setting(
        "auto", "device of the network (auto: a GPU if there is one and torch can use it, else the CPU)"
    )
    precision: Literal["fp32", "fp16"] = setting("fp32", "precision of torchscript on a GPU (fp16 is faster)")
    threads: int = setting(1, "compute threads per worker (one thread and one worker per core are fastest)")
    decode_threads: int = setting(0, "image decoding threads per worker (0: 1 on a CPU, 8 on a GPU)")
    max_image_bytes: int = setting(20_000_000, "maximum bytes of one encoded image")
    max_image_pixels: int = setting(
        50_000_000, "maximum pixels (width times height) of one image, and of all images in one JSON request together"
    )
    max_instances: int = setting(32, "maximum images in one JSON request")
    worker_memory_mb: int = setting(
        0,
        "maximum memory of one worker in MB; a request that needs more gets status 413 (0: enough for the largest "
        "request that the other limits allow, and no limit with torchscript or on a GPU)",
    )
    ood_threshold: str = setting(
        "", "an image with a higher OOD score is not known (empty: the threshold in the archive)"
    )
    abstain: Literal["label", "known"] = setting(
        "label", "what an unknown image lacks (label: its label is null; known: only `known` is false)"
    )

    def __post_init__(self) -> None:
        check_choices(self)
        check_at_least(self, threads=1, decode_threads=0, max_image_bytes=1, max_image_pixels=1, max_instances=1)
        check_at_least(self, worker_memory_mb=0)
        if self.ood_threshold and not _is_number(self.ood_threshold):
            raise SettingError(
                f"ood_threshold is {self.ood_threshold!r}; it must be a number, such as 1.5, or empty for the "
                "threshold in the archive."
            )
        if self.max_image_pixels > PILLOW_MAX_PIXELS:
            raise SettingError(
                f"max_image_pixels is {self.max_image_pixels}; it must be at most {PILLOW_MAX_PIXELS}, "
                "the limit of the image decoder."
            )
        if self.precision == "fp16" and (self.device == "cpu" or self.backend.startswith("onnx")):
            raise SettingError(
                f"precision fp16 is for backend torchscript on device cuda, but backend is {self.backend} and device "
                f"is {self.device}. Set precision to fp32."
            )

    def choose_threshold(self, of_archive: float | None) -> float | None:
        """Return the threshold for OOD scores that counts: `ood_threshold`, or else the one of the archive, if any."""
        return float(self.ood_threshold) if self.ood_threshold else of_archive

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> WorkerSettings:
        """Read the settings from the variables `VINEGRAPE_<FIELD>`. A field without a variable keeps its default.

        Raises:
            SettingError: a value is invalid.
        """
        return cls(**read_environment(cls, environment))

    def to_environment(self) -> dict[str, str]:
        """Return the variables from which `from_environment` reads the same settings."""
        return {ENVIRONMENT_PREFIX + name.upper(): str(value) for name, value in dataclasses.asdict(self).items()}


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
