"""The entry file of the archive that is measured: the handler, counting the processor's time of its functions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import Counter

from vinegrape_handler.classifier import Probabilities
from vinegrape_handler.errors import RequestError
from vinegrape_handler.handler import Handler


class TimedHandler(Handler):
    """What is counted ends up in /metrics, as `vinegrape_bench_handler_cpu_seconds_total`."""

    def _load(self, folder: Path, gpu: int | None) -> None:
        super()._load(folder, gpu)
        seconds = Counter(
            "vinegrape_bench_handler_cpu_seconds", "Of decode, resize and network", registry=self.metrics.registry
        )
        classify = self.classifier.classify

        def timed(images: Sequence[bytes]) -> list[Probabilities | RequestError]:
            start = time.thread_time()
            try:
                return classify(images)
            finally:
                seconds.inc(time.thread_time() - start)

        self.classifier.classify = timed  # type: ignore[method-assign]
