"""The entry file of the archive that is measured: the handler, counting what its own functions take of the processor."""

import time

from prometheus_client import Counter
from vinegrape_handler.handler import Handler


class TimedHandler(Handler):
    """What is counted ends up in /metrics, as `vinegrape_bench_handler_cpu_seconds_total`."""

    def _load(self, folder, gpu):  # noqa: ANN001, ANN202
        super()._load(folder, gpu)
        seconds = Counter(
            "vinegrape_bench_handler_cpu_seconds", "Of decode, resize and network", registry=self.metrics.registry
        )
        classify = self.classifier.classify

        def timed(images):  # noqa: ANN001, ANN202
            start = time.thread_time()
            try:
                return classify(images)
            finally:
                seconds.inc(time.thread_time() - start)

        self.classifier.classify = timed
