"""Encoded images to probabilities: decode and resize each, run the network over all that are good."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vinegrape_handler.decode import Limits, decode, open_image
from vinegrape_handler.errors import InferenceFailed, RequestError
from vinegrape_handler.metadata import Metadata
from vinegrape_handler.metrics import Metrics
from vinegrape_handler.networks import Network
from vinegrape_handler.resize import resize
from vinegrape_handler.settings import MAX_BATCH_SIZE

Probabilities: TypeAlias = NDArray[np.float32]
"""Of one image: float32 [C], summing to 1, in the order of `Metadata.classes`."""


_logger = logging.getLogger(__name__)


class Classifier:
    """A network together with the way its images are read."""

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
        self._time_inference = metrics.inference_seconds.time if metrics else nullcontext
        self._map: Callable[..., Iterable[NDArray[np.uint8] | RequestError]] = map
        if decode_threads > 1:
            self._map = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode").map

    def classify(self, images: Sequence[bytes]) -> list[Probabilities | RequestError]:
        """Classify a batch; a bad image gets its own error and the others their answers.

        Args:
            images: N encoded images.

        Returns:
            N results in the order of the images.
        """
        prepared = list(self._map(self._prepare, images))
        good = [item for item in prepared if not isinstance(item, RequestError)]
        answers = self._infer(good)
        return [item if isinstance(item, RequestError) else next(answers) for item in prepared]

    def pixels(self, data: bytes) -> int:
        """How many pixels decoding an image takes, from its header alone; none if it is bad, which costs nothing."""
        try:
            width, height = open_image(data, self._limits, self.metadata.input_size).size
        except RequestError:
            return 0
        return width * height

    def _prepare(self, data: bytes) -> NDArray[np.uint8] | RequestError:
        try:
            side = self.metadata.input_size
            with self._time_decode():
                return resize(decode(data, self._limits, side), side, self.metadata.interpolation)
        except RequestError as error:
            return error

    def _infer(self, images: list[NDArray[np.uint8]]) -> Iterator[Probabilities | RequestError]:
        """One call of the network for up to `call_size` images, each uint8 [S,S,3]."""
        for start in range(0, len(images), self._call_size):
            batch = np.stack(images[start : start + self._call_size])  # uint8 [N,S,S,3]
            if self._metrics:
                self._metrics.batch_size.observe(len(batch))
            try:
                with self._time_inference():
                    answers = self._network(batch)
                yield from answers
            except Exception:
                _logger.exception("The network failed on a batch of %d images.", len(batch))
                yield from [InferenceFailed("The model could not be run on this image; try again.")] * len(batch)
