"""What one worker is told: every field, its default, its meaning and its environment variable, in one place."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vinegrape_handler.errors import SettingError
from vinegrape_handler.fields import ENVIRONMENT_PREFIX, check_at_least, check_choices, read_environment, setting
from vinegrape_handler.weights import Backend

# The most images in one call of the network, whatever the number of instances in a request. On a GPU it bounds the
# memory. On a CPU, where activations take about 22 MB an image (MobileNetV2 at 320 px), a call of 4 takes as long an
# image as of 1, and one of 64 a fifth longer: they leave the cache.
MAX_BATCH_SIZE = 64
CPU_CALL_SIZE = 4

# Where Pillow itself gives up with a decompression-bomb error
PILLOW_MAX_PIXELS = 178_956_970


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker decodes and computes."""

    backend: Literal["auto", Backend] = setting(
        "auto", "weights to run; auto: torchscript on a GPU, else onnx_int8, or what the archive holds"
    )
    device: Literal["auto", "cpu", "cuda"] = setting("auto", "auto: a GPU if there is one and torch can use it")
    precision: Literal["fp32", "fp16"] = setting("fp32", "of torchscript on a GPU; fp16 is faster there")
    threads: int = setting(1, "compute threads a worker; one a worker and a worker a core is fastest")
    decode_threads: int = setting(0, "threads a worker that decode images; 0: 1 on CPU, 8 on a GPU")
    max_image_bytes: int = setting(20_000_000, "bytes of one encoded image")
    max_image_pixels: int = setting(
        50_000_000, "pixels to decode in one request, width times height of its image or images"
    )
    max_instances: int = setting(32, "images in one JSON request")

    def __post_init__(self) -> None:
        check_choices(self)
        check_at_least(self, threads=1, decode_threads=0, max_image_bytes=1, max_image_pixels=1, max_instances=1)
        if self.max_image_pixels > PILLOW_MAX_PIXELS:
            raise SettingError(
                f"max_image_pixels is {self.max_image_pixels}; the decoder accepts at most {PILLOW_MAX_PIXELS}."
            )
        if self.precision == "fp16" and (self.device == "cpu" or self.backend.startswith("onnx")):
            raise SettingError(
                f"precision fp16 is for backend torchscript on device cuda; they are {self.backend} and {self.device}. "
                "Set precision to fp32."
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> WorkerSettings:
        """Read `VINEGRAPE_<FIELD>` for each field; what is not set keeps its default.

        Raises:
            SettingError: a value that cannot be.
        """
        return cls(**read_environment(cls, environment))

    def to_environment(self) -> dict[str, str]:
        """The variables that `from_environment` reads back to the same settings."""
        return {ENVIRONMENT_PREFIX + name.upper(): str(value) for name, value in dataclasses.asdict(self).items()}
