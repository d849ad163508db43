"""Classify encoded images: decode and resize each one, then run the network on all valid ones."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vinegrape_handler.deadline import check_deadline
from vinegrape_handler.errors import NEEDS_MEMORY, InferenceFailed, RequestError, TooLarge
from vinegrape_handler.images.decode import Limits, decode, decoding_work
from vinegrape_handler.images.resize import fitted_size, resize
from vinegrape_handler.metadata import Metadata
from vinegrape_handler.metrics import Metrics
from vinegrape_handler.networks import Network
from vinegrape_handler.settings import MAX_BATCH_SIZE

_logger = logging.getLogger(__name__)


Pixels: TypeAlias = NDArray[np.uint8]
"""An image in the size of the network's input: uint8 [S, S, 3], RGB, 0 to 255."""


class FittedImage(NamedTuple):
    """An image as the network sees it, see `resize`.

    Attributes:
        pixels: the square.
        width, height: of the image in the centre of the square, in pixels.
    """

    pixels: Pixels
    width: int
    height: int


class Scores(NamedTuple):
    """What the network has computed for one image.

    Attributes:
        probabilities: float32 [C], summing to 1, in the order of `Metadata.classes`.
        ood_score: see `Outputs.ood_scores`; None if the network computes none.
        activation_maps: float32 [C, h, w], see `Outputs.activation_maps`; None if the network computes none.
        image: the image itself; None if the scores were not computed from one.
    """

    probabilities: NDArray[np.float32]
    ood_score: float | None = None
    activation_maps: NDArray[np.float32] | None = None
    image: FittedImage | None = None


class TimedImage(NamedTuple):
    """An image that is not decoded after a deadline.

    Attributes:
        data: the encoded image.
        deadline: Unix time in seconds.
    """

    data: bytes
    deadline: float


InputImage: TypeAlias = bytes | TimedImage | Pixels | RequestError
"""An encoded image, or its pixels. An error takes the place of an image that could not be read."""


class Timing(NamedTuple):
    """Where the time of a batch went, in seconds.

    Attributes:
        decode: until all images were decoded and resized.
        inference: of all calls of the network.
    """

    decode: float = 0.0
    inference: float = 0.0


class Classifier:
    """A network together with its preprocessing. One thread may call it at a time.

    Args:
        metadata: the model's input size and interpolation.
        network: see `Network`.
        limits: the maximum size of an image.
        decode_threads: threads that decode and resize images; 1 means the calling thread.
        metrics: where times and batch sizes are recorded; None records nothing.
        call_size: maximum images per call of the network.

    Attributes:
        timing: of the last batch.
    """

    def __init__(
        self,
        metadata: Metadata,
        network: Network,
        limits: Limits,
        decode_threads: int = 1,
        metrics: Metrics | None = None,
        call_size: int = MAX_BATCH_SIZE,
    ) -> None:
        self.metadata = metadata
        self._call_size = call_size
        self._network = network
        self._limits = limits
        self._metrics = metrics
        self._time_decode = metrics.decode_seconds.time if metrics else nullcontext
        self.timing = Timing()
        self._map: Callable[..., Iterable[FittedImage | RequestError]] = map
        if decode_threads > 1:
            self._map = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode").map

    def classify(self, images: Sequence[InputImage]) -> list[Scores | RequestError]:
        """Classify a batch. An invalid image gets its own error and does not affect the others.

        Args:
            images: N images.

        Returns:
            N results in the order of the images. An error among the images is returned as it is.
        """
        start = time.perf_counter()
        prepared = list(self._map(self._prepare, images))
        self.timing = Timing(decode=time.perf_counter() - start)
        results = iter(self._infer([item for item in prepared if not isinstance(item, RequestError)]))
        return [item if isinstance(item, RequestError) else next(results) for item in prepared]

    def work(self, data: bytes) -> int:
        """Return what decoding an image costs, as a number of pixels; 0 for an invalid image. See `decoding_work`."""
        try:
            return decoding_work(data, self._limits, self.metadata.input_size)
        except RequestError:
            return 0

    def _prepare(self, image: InputImage) -> FittedImage | RequestError:
        """Decode and resize one image, unless it is prepared, or return its error."""
        if isinstance(image, RequestError):
            return image
        side = self.metadata.input_size
        if isinstance(image, np.ndarray):
            return FittedImage(image, side, side)
        try:
            if isinstance(image, TimedImage):
                check_deadline(image.deadline)
                image = image.data
            with self._time_decode():
                decoded = decode(image, self._limits, side)
                return FittedImage(resize(decoded, side, self.metadata.interpolation), *fitted_size(decoded.size, side))
        except RequestError as error:
            return error
        except MemoryError:
            return TooLarge(NEEDS_MEMORY)

    def _infer(self, images: list[FittedImage]) -> list[Scores | RequestError]:
        """Run the network on images, up to `call_size` at a time."""
        results: list[Scores | RequestError] = []
        for first in range(0, len(images), self._call_size):
            of_call = images[first : first + self._call_size]
            batch = np.stack([image.pixels for image in of_call])  # uint8 [N, S, S, 3]
            if self._metrics:
                self._metrics.batch_size.observe(len(batch))
            try:
                start = time.perf_counter()
                outputs = self._network(batch)
                self._add_inference(time.perf_counter() - start)
                nothing = [None] * len(batch)
                ood_scores = nothing if outputs.ood_scores is None else outputs.ood_scores.tolist()
                maps = nothing if outputs.activation_maps is None else outputs.activation_maps
                if self._metrics:
                    self._metrics.count_properties(batch, outputs.ood_scores)
                results.extend(map(Scores, outputs.probabilities, ood_scores, maps, of_call))
            except Exception:
                _logger.exception("The network failed on a batch of %d images.", len(batch))
                results.extend([InferenceFailed("The model failed on this image. Try again.")] * len(batch))
        return results

    def _add_inference(self, seconds: float) -> None:
        """Record the time of a call of the network."""
        self.timing = self.timing._replace(inference=self.timing.inference + seconds)
        if self._metrics:
            self._metrics.inference_seconds.observe(seconds)
