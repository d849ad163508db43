"""The latency of several networks, measured in turns."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vinegrape_handler.networks import Network
from vinegrape_training.progress import progress

_ROUNDS = 40


def time_in_turns(networks: Sequence[Network], sides: Sequence[int]) -> NDArray[np.float64]:
    """Measure the time that each network takes for one image of noise, round after round.

    Networks take turns, so that other load on the machine affects all of them alike.

    Args:
        networks: loaded as the service loads them, on one thread.
        sides: width and height of each network's input in pixels.

    Returns:
        Seconds, float64 [rounds, networks].
    """
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (1, side, side, 3), dtype=np.uint8) for side in sides]
    for network, image in zip(networks, images, strict=True):
        network(image)  # warm-up
    times = np.empty((_ROUNDS, len(networks)))
    for row in progress(range(_ROUNDS), "Measuring latency"):
        for column, (network, image) in enumerate(zip(networks, images, strict=True)):
            start = time.perf_counter()
            network(image)
            times[row, column] = time.perf_counter() - start
    return times
