"""The interface between the supervisor (`vinegrape serve`) and the handler in an archive.

An archive contains its own copy of this package, so the handler can be older or newer than the supervisor. Before you
change a value here, decide how existing archives will be served.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from vinegrape_handler.reference import CONFIDENCE, OOD_SCORE

# A GET request to the prediction path with this header runs a self-check, if the header's value is the token that the
# supervisor passes to its workers in this environment variable. Self-checks are not counted in the metrics.
SELF_CHECK_HEADER = "x-vinegrape-self-check"
# Request headers that the edge and the gateway set. The edge removes them from what clients send. Without the edge a
# client can set them; then they only concern that client's own request.
CONTENT_TYPE_HEADER = "x-vinegrape-content-type"  # the client's; TorchServe receives every body as octet-stream
TRANSPORT_HEADER = "x-vinegrape-transport"  # "grpc" from the gateway; otherwise the request arrived over REST
DEADLINE_HEADER = "x-vinegrape-deadline-ms"  # Unix time in milliseconds; a request is not started after it
# Path and query of the request. TorchServe routes one path only, so the edge rewrites all others to it. Without this
# header, and by archives that do not know it, a request is read as one to `/predictions/NAME`
PATH_HEADER = "x-vinegrape-path"
# TorchServe adds this header, with the value True, to the requests to its own paths of explanations
EXPLAIN_HEADER = "explain"
# Of Triton's extension for binary tensors, in requests and responses: the size of the JSON before the tensors' bytes
JSON_LENGTH_HEADER = "inference-header-content-length"

# Response header of every response that the handler has made: the error's type, or "none". TorchServe's own errors have
# none, which is how the edge and the gateway recognise them. The edge removes it.
ERROR_HEADER = "x-vinegrape-error"
NO_ERROR = "none"

# Response header: version of the model of the worker, for the access log. The edge removes it
VERSION_HEADER = "x-vinegrape-version"

# Response header of the W3C's Server Timing: the milliseconds that the request's batch was decoded, and was in the
# network. The edge adds the time in its queue, and the total.
TIMING_HEADER = "server-timing"
# Response header of the edge's private entry: the milliseconds that the request waited in the edge's queue
QUEUE_HEADER = "x-vinegrape-queue-ms"
# Initial metadata of the gateway's errors, for the edge's access log: the edge cannot read the status of a call
CALL_ERROR_HEADER = "x-vinegrape-call-error"

SELF_CHECK_VARIABLE = "VINEGRAPE_SELF_CHECK"

# A worker that cannot start logs this text, followed by the reason on the same line.
START_FAILED = "vinegrape worker cannot start: "


class MetricName(NamedTuple):
    """Name and help text of a metric that the supervisor reads."""

    name: str
    help: str


WORKERS_READY = MetricName("vinegrape_workers_ready", "Running workers that have passed their self-check")
BATCHES_IN_PROGRESS = MetricName("vinegrape_batches_in_progress", "Batches that workers are processing")
# Times of each worker, by process id. They are seconds of CLOCK_MONOTONIC, which is the same for all processes.
BATCH_STARTED = MetricName("vinegrape_batch_started_seconds", "When a worker's current batch started (0: it has none)")
BATCH_FINISHED = MetricName("vinegrape_batch_finished_seconds", "When a worker's last batch was finished (0: none yet)")

# Drift is measured from these: the counter of labels, and one histogram per property. The upper ends of a histogram's
# buckets include the edges of the reference's distribution.
PREDICTIONS = MetricName("vinegrape_predictions", "Predictions by label (unknown: the image has none)")
HISTOGRAMS = {
    CONFIDENCE: MetricName("vinegrape_confidence", "Probability of the predicted label"),
    OOD_SCORE: MetricName("vinegrape_ood_score", "Out-of-distribution score"),
    "brightness": MetricName("vinegrape_image_brightness", "Mean of an image's pixels, 0 (black) to 1"),
    "sharpness": MetricName("vinegrape_image_sharpness", "Root mean square of an image's Laplacian, 0 to 8"),
    "background": MetricName(
        "vinegrape_image_background", "Brightness of the median colour of an image's border, 0 to 1"
    ),
    "size": MetricName("vinegrape_image_size", "Share of an image's pixels that are not background, 0 to 1"),
    "warmth": MetricName("vinegrape_image_warmth", "How much redder than blue an image is, 0 (blue) to 1 (red)"),
}


class SelfCheckAnswer(NamedTuple):
    """The response to a successful self-check.

    Attributes:
        worker: process ID of the worker.
        version: version of the model that the worker serves.
    """

    worker: int
    version: str

    def to_body(self, name: str) -> dict[str, Any]:
        """Build the response body for the model with this name."""
        return {"worker": self.worker, "model": {"name": name, "version": self.version}}

    @classmethod
    def from_body(cls, body: Any) -> SelfCheckAnswer:
        """Read a parsed response body.

        Raises:
            LookupError, TypeError, ValueError: the body is not the response to a self-check.
        """
        return cls(int(body["worker"]), str(body["model"]["version"]))
