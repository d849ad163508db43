"""What one worker is told: every field, its default, its meaning and its environment variable, in one place."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from vinegrape_handler.decode import Limits
from vinegrape_handler.errors import SettingError
from vinegrape_handler.metadata import Backend

ENVIRONMENT_PREFIX = "VINEGRAPE_"

# The most images in one call of the network, whatever the number of instances in a request. On a GPU it bounds the
# memory. On a CPU, where activations take about 22 MB an image (MobileNetV2 at 320 px), a call of 4 takes as long an
# image as of 1, and one of 64 a fifth longer: they leave the cache.
MAX_BATCH_SIZE = 64
CPU_CALL_SIZE = 4

# Where Pillow itself gives up with a decompression-bomb error
PILLOW_MAX_PIXELS = 178_956_970


def setting(default: Any, meaning: str) -> Any:
    """A dataclass field with its meaning, which `vinegrape serve --help` shows."""
    return dataclasses.field(default=default, metadata={"meaning": meaning})


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

    @property
    def limits(self) -> Limits:
        """What one image may measure."""
        return Limits(self.max_image_bytes, self.max_image_pixels)

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


def read_environment(settings: type, environment: Mapping[str, str]) -> dict[str, Any]:
    """Values of a settings class that the environment gives, typed as their fields are.

    Raises:
        SettingError: a value that does not read as its field's type.
    """
    fields = (field for field in dataclasses.fields(settings) if "meaning" in field.metadata)
    names = {field.name: ENVIRONMENT_PREFIX + field.name.upper() for field in fields}
    return {
        name: parse(settings, name, environment[variable], variable)
        for name, variable in names.items()
        if variable in environment
    }


def parse(settings: type, name: str, text: str, source: str) -> Any:
    """Read a field's value from text: a whole number where its default is one.

    Raises:
        SettingError: not a whole number; `source` says where the text came from.
    """
    default = next(field.default for field in dataclasses.fields(settings) if field.name == name)
    if not isinstance(default, int):
        return text
    try:
        return int(text)
    except ValueError:
        raise SettingError(f"{source} is {text!r}; it must be a whole number.") from None


def choices(settings: type, name: str) -> tuple[str, ...]:
    """The values that a field of a literal type can have; none for any other field."""
    hint = get_type_hints(settings)[name]
    return get_args(hint) if get_origin(hint) is Literal else ()


def check_choices(settings: Any) -> None:
    """Raise a SettingError for a field of a literal type with another value."""
    for field in dataclasses.fields(settings):
        allowed, value = choices(type(settings), field.name), getattr(settings, field.name)
        if allowed and value not in allowed:
            raise SettingError(f"{field.name} is {value!r}; it must be one of {', '.join(allowed)}.")


def check_at_least(settings: Any, **minima: int) -> None:
    """Raise a SettingError for a field below its minimum."""
    for name, minimum in minima.items():
        value = getattr(settings, name)
        if value < minimum:
            raise SettingError(f"{name} is {value}; it must be at least {minimum}.")
