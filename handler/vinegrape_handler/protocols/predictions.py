"""Our own protocol, `/predictions/NAME`, and KServe's first one, `/v1/models/NAME:predict`, which has the same bodies.

The parameter `format=huggingface` gives the responses the form of Hugging Face's image classification.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from vinegrape_handler import answer
from vinegrape_handler.errors import BadRequest, DeadlineExceeded, RequestError, error_body
from vinegrape_handler.protocols.route import Call, Model, Pending, Response, Result, Route, error_response
from vinegrape_handler.protocols.web import read_page
from vinegrape_handler.request import read_request

_HUGGINGFACE = "huggingface"


def routes(model: Model) -> dict[str, Route]:
    """Return the routes by path."""
    name = model.metadata.name
    return dict.fromkeys((f"/predictions/{name}", f"/v1/models/{name}:predict"), route(model))


def route(model: Model) -> Route:
    """Return the route of our own protocol."""
    return Route(partial(_read, model), error_response)


class Form(NamedTuple):
    """The form of the predictions that a request asks for.

    Attributes:
        top_k: how many classes have their probabilities in the prediction; None for all.
        huggingface: whether a prediction has the form of Hugging Face.
    """

    top_k: int | None
    huggingface: bool

    @classmethod
    def of(cls, *sources: Mapping[str, Sequence[str]]) -> Form:
        """Read the parameters from the query and the form fields.

        Raises:
            BadRequest: a parameter has an invalid value.
        """
        form = only_value("format", sources)
        if form not in (None, _HUGGINGFACE):
            raise BadRequest(f"The parameter format is {form[:40]!r}; it must be {_HUGGINGFACE}, or absent.")
        top_k = only_value("top_k", sources)
        if top_k is not None and not (top_k.isascii() and top_k.isdigit() and len(top_k) <= 9 and int(top_k)):
            raise BadRequest(f"The parameter top_k is {top_k[:40]!r}; it must be a whole number, at least 1.")
        return cls(None if top_k is None else int(top_k), form == _HUGGINGFACE)

    def apply(self, result: Result) -> Any:
        """Return what the response contains about an image."""
        if isinstance(result, RequestError):
            return error_body(result)
        prediction = result.prediction
        if self.top_k is None and not self.huggingface:
            return prediction
        best = sorted(prediction["probabilities"].items(), key=lambda item: -item[1])[: self.top_k]
        if not self.huggingface:
            return {**prediction, "probabilities": dict(best)}
        # Clients of Hugging Face take the first label. The form cannot say that the model does not know the image
        return [{"label": label, "score": score} for label, score in best] if prediction["label"] is not None else []


def only_value(name: str, sources: Sequence[Mapping[str, Sequence[str]]]) -> str | None:
    """Return the value of a parameter; None if it is absent.

    Raises:
        BadRequest: it has several values.
    """
    values = [value for source in sources for value in source.get(name, ())]
    if len(values) > 1:
        raise BadRequest(f"The parameter {name} is given {len(values)} times; give it once.")
    return values[0] if values else None


def _read(model: Model, call: Call) -> Pending:
    request = read_request(call.row, call.headers, model.settings.max_instances)
    form = Form.of(call.query, request.parameters)
    match request.kind:
        case "image":
            return Pending(request.images, partial(respond_to_image, form.apply))
        case "instances":
            return Pending(request.images, partial(respond_to_instances, form.apply), is_list=True)
        case "describe":
            return Pending((), lambda _: Response(answer.description(*model)))
        case "page":
            return read_page(call)


def respond_to_image(apply: Callable[[Result], Any], results: Sequence[Result]) -> Response:
    """Build the response to a request with one image; `apply` returns what it contains about the image."""
    (result,) = results
    return Response(apply(result), result if isinstance(result, RequestError) else None)


def respond_to_instances(apply: Callable[[Result], Any], results: Sequence[Result]) -> Response:
    """Build the response to a request with a list of images; `apply` returns what it contains about an image."""
    late = next((result for result in results if isinstance(result, DeadlineExceeded)), None)
    return error_response(late) if late else Response({"predictions": [apply(result) for result in results]})
