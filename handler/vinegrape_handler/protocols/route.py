"""What the modules of this package share: a request, the images that were read from it, and its response."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from vinegrape_handler import answer
from vinegrape_handler.classifier import InputImage, Scores
from vinegrape_handler.errors import RequestError, error_body
from vinegrape_handler.metadata import Metadata
from vinegrape_handler.settings import WorkerSettings


class Classified(NamedTuple):
    """An image that was classified.

    Attributes:
        prediction: see `answer.prediction`.
        scores: from which the prediction was made.
    """

    prediction: dict[str, Any]
    scores: Scores


Result: TypeAlias = Classified | RequestError
"""What became of one image."""


class Model(NamedTuple):
    """The model that is served, and how.

    Attributes:
        metadata: its description.
        settings: of the worker.
        backend: the backend in use.
        explains: whether the network computes activation maps.
    """

    metadata: Metadata
    settings: WorkerSettings
    backend: str
    explains: bool = False


class Call(NamedTuple):
    """One request, as TorchServe passes it.

    Attributes:
        row: TorchServe's inputs by name: a raw body, or form fields. Those with the same name are a list.
        headers: the request's headers, with names in any case.
        query: the query's values by parameter.
    """

    row: Mapping[str, Any]
    headers: Mapping[str, Any]
    query: Mapping[str, Sequence[str]]


class Response(NamedTuple):
    """The response to one request.

    Attributes:
        body: becomes JSON, unless it is bytes.
        error: the error that the request as a whole got, if any. It determines the status.
        headers: further headers.
        content_type: of the body.
        is_counted: whether the metrics count the request; not so for a self-check.
    """

    body: dict[str, Any] | list[Any] | bytes
    error: RequestError | None = None
    headers: Mapping[str, str] = MappingProxyType({})
    content_type: str = answer.CONTENT_TYPE
    is_counted: bool = True


class Pending(NamedTuple):
    """A request that has been read.

    Attributes:
        images: the images to classify; an error takes the place of an image that could not be read.
        respond: builds the response from the images' results, in their order.
        is_list: whether the images arrived in a list. Together they may take as long to decode as one image may.
    """

    images: Sequence[InputImage]
    respond: Callable[[Sequence[Result]], Response]
    is_list: bool = False


class Route(NamedTuple):
    """How the requests to a path are read and answered.

    Attributes:
        read: reads a request. Raises a RequestError if the request as a whole is invalid.
        respond_to_error: builds the response to a request that has failed as a whole.
    """

    read: Callable[[Call], Pending]
    respond_to_error: Callable[[RequestError], Response]


def error_response(error: RequestError) -> Response:
    """Build the response to a request that has failed as a whole, with our body of an error."""
    return Response(error_body(error), error)


def constant(body: dict[str, Any]) -> Callable[[Call], Pending]:
    """Return a reader of requests without images, whose response is always the same."""
    return lambda _: Pending((), lambda _: Response(body))
