"""The entry file of the archive that is measured: the handler, which counts the CPU time of decode, resize and network.

The counter appears in /metrics as `vinegrape_bench_handler_cpu_seconds_total`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from prometheus_client import Counter

from vinegrape_handler.classifier import InputImage, Scores
from vinegrape_handler.errors import RequestError
from vinegrape_handler.handler import BatchContext, Handler


class TimedHandler(Handler):
    """A handler that counts the CPU seconds of `classify`."""

    def initialize(self, context: BatchContext) -> None:
        """See `Handler`."""
        super().initialize(context)
        self._cpu_seconds = Counter(
            "vinegrape_bench_handler_cpu_seconds", "Of decode, resize and network", registry=self.metrics.registry
        )

    def classify(self, images: Sequence[InputImage]) -> list[Scores | RequestError]:
        """See `Handler`."""
        start = time.thread_time()
        try:
            return super().classify(images)
        finally:
            self._cpu_seconds.inc(time.thread_time() - start)
