"""Peak memory of a server under load. A container's memory limit must be higher."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus

import psutil
from PIL import Image

from vinegrape_handler.settings import WorkerSettings
from vinegrape_loadtests.client import MODEL_NAME, HttpResponse, instances_body, post
from vinegrape_loadtests.images import draw_photo, encode
from vinegrape_loadtests.local.processes import pss_mib
from vinegrape_loadtests.local.server import Server, serving
from vinegrape_loadtests.response_checks import WrongResponse, read_grpc_error

_SAMPLE_S = 0.05
_GRPC_TIMEOUT_S = 60
_FORM_BOUNDARY = "vinegrape-memory"
COLUMNS = ("Java", "largest worker", "gateway", "edge", "serve", "all")
_COLUMN_OF = {"Java": "Java", "worker": "largest worker", "gateway": "gateway", "edge": "edge", "supervisor": "serve"}


@dataclass(frozen=True)
class LoadRequest:
    """One kind of request.

    Attributes:
        body: the body over REST; over gRPC the input.
        content_type: media type of the body over REST; empty: the request is sent over gRPC.
    """

    body: bytes
    content_type: str = "application/octet-stream"


@dataclass(frozen=True)
class MemoryRow:
    """The memory that a server needed for one kind of request.

    Attributes:
        name: name of the request.
        peak_mib: the highest PSS while the load ran, by column, in MiB.
        responses: how often each HTTP status, or each kind of error, was returned.
    """

    name: str
    peak_mib: dict[str, float]
    responses: Counter[str]

    @property
    def complete(self) -> bool:
        """Whether the server has failed no request; else the load was too high, and the peak is too low.

        It may refuse a part of them: the edge limits how many large requests it holds at the same time.
        """
        return not self.responses or ("200" in self.responses and not self.responses.keys() - {"200", "429"})


def measure_memory(connections: int, seconds: float, image: bytes, *, edge: bool = False) -> Iterator[MemoryRow]:
    """Start a server, and yield one row per kind of request as soon as it is measured.

    Args:
        connections: clients that send requests at the same time.
        seconds: duration of each load.
        image: an encoded image, as clients usually send it.
        edge: whether to start the edge, and send all requests through it.
    """
    requests = make_requests(image, WorkerSettings.from_environment())
    with serving(*(("--edge", "--queue-wait-ms", "0") if edge else ()), stdout=subprocess.DEVNULL) as server:
        with PeakMemory(server.process.pid) as peak:
            pass
        yield MemoryRow("started", peak.mib, Counter())
        for name, request in requests.items():
            with PeakMemory(server.process.pid) as peak:
                responses = send_all(server, request, connections, seconds)
            yield MemoryRow(name, peak.mib, responses)


def format_header() -> str:
    """Format the columns' names."""
    return f"{'':30}{''.join(f'{name:>16}' for name in COLUMNS)}   responses"


def format_row(row: MemoryRow) -> str:
    """Format one row."""
    counts = "  ".join(f"{status}: {count}" for status, count in row.responses.items())
    return f"{row.name:30}{''.join(f'{row.peak_mib[column]:16.0f}' for column in COLUMNS)}   {counts}".rstrip()


def make_requests(image: bytes, settings: WorkerSettings) -> dict[str, LoadRequest]:
    """Build requests by name, from a usual image to the largest that the settings allow."""
    side = int((settings.max_image_bytes / 3) ** 0.5) - 10  # 10 less, for the BMP's header and padding
    largest = encode(Image.frombytes("RGB", (side, side), os.urandom(side * side * 3)), "BMP")
    width = settings.max_image_pixels // 5000
    return {
        "the image": LoadRequest(image),
        "photo, 12 megapixels": LoadRequest(draw_photo()),
        # With 4 channels an image may have 3/4 of the pixels
        "most pixels, RGBA": LoadRequest(encode(Image.new("RGBA", (width * 3 // 4, 5000), "grey"), "PNG")),
        "most pixels, 16 bits": LoadRequest(encode(Image.new("I;16", (width, 5000)), "PNG")),
        "most bytes": LoadRequest(largest),
        "most bytes, as a form": LoadRequest(_form(largest), f"multipart/form-data; boundary={_FORM_BOUNDARY}"),
        "most bytes, over gRPC": LoadRequest(largest, content_type=""),
        "most instances": LoadRequest(instances_body([image] * settings.max_instances), "application/json"),
        "most bytes, as instances": LoadRequest(instances_body([largest]), "application/json"),
    }


def _form(image: bytes) -> bytes:
    """Build the body of a form with one file."""
    head = f'--{_FORM_BOUNDARY}\r\nContent-Disposition: form-data; name="data"; filename="image"\r\n\r\n'
    return head.encode() + image + f"\r\n--{_FORM_BOUNDARY}--\r\n".encode()


def send_all(server: Server, request: LoadRequest, connections: int, seconds: float) -> Counter[str]:
    """Send the same request from several clients for some seconds; a refused client waits as long as it is told to.

    Each client of an edge has an address of its own, because the edge limits the large requests of one address.

    Returns:
        How often each status was returned, or each exception was raised, by its name. A status of gRPC is counted as
        that of REST.
    """
    end, responses = time.monotonic() + seconds, Counter[str]()
    call = None if request.content_type else grpc_caller(server.grpc_address)

    def send_until_end(client: int) -> None:
        source = f"127.0.1.{client + 1}" if server.edge else None  # Linux accepts every address of 127.0.0.0/8
        send = call or rest_caller(server.predictions_url, source)
        while (remaining_s := end - time.monotonic()) > 0:
            try:
                response = send(request)
            except (OSError, WrongResponse) as error:
                responses[type(error).__name__] += 1
                continue
            responses[str(response.status)] += 1
            if response.retry_after:
                time.sleep(min(float(response.retry_after), remaining_s))

    with concurrent.futures.ThreadPoolExecutor(connections) as pool:
        list(pool.map(send_until_end, range(connections)))
    return responses


def rest_caller(url: str, source: str | None = None) -> Callable[[LoadRequest], HttpResponse]:
    """Return a function that sends a request over REST, on a new connection.

    Args:
        url: where to.
        source: the client's own address; the system chooses it if None.
    """

    def call(request: LoadRequest) -> HttpResponse:
        return post(url, request.body, request.content_type, source=source)

    return call


def grpc_caller(address: str) -> Callable[[LoadRequest], HttpResponse]:
    """Return a function that sends a request over gRPC, on a new connection."""
    import grpc

    from vinegrape_client.inference_pb2 import PredictionsRequest
    from vinegrape_client.inference_pb2_grpc import InferenceAPIsServiceStub

    options = [("grpc.use_local_subchannel_pool", 1)]  # without it, all clients would share one connection

    def call(request: LoadRequest) -> HttpResponse:
        message = PredictionsRequest(model_name=MODEL_NAME, input={"data": request.body})
        with grpc.insecure_channel(address, options) as channel:
            predict = InferenceAPIsServiceStub(channel).Predictions
            try:
                return HttpResponse(HTTPStatus.OK, predict(message, timeout=_GRPC_TIMEOUT_S).prediction)
            except grpc.RpcError as error:
                return read_grpc_error(error)

    return call


class PeakMemory:
    """A context manager that samples the memory of a process and its descendants, and keeps the highest values."""

    def __init__(self, pid: int) -> None:
        self.mib = dict.fromkeys(COLUMNS, 0.0)
        self._pid = pid
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            for name, mib in self._sample().items():
                self.mib[name] = max(self.mib[name], mib)
            if self._end.wait(_SAMPLE_S):
                return

    def _sample(self) -> dict[str, float]:
        sample = dict.fromkeys(COLUMNS, 0.0)
        with contextlib.suppress(psutil.NoSuchProcess):
            for kind, mib in pss_mib(self._pid):
                column = _COLUMN_OF[kind]
                sample[column] = max(sample[column], mib)
                sample["all"] += mib
        return sample
