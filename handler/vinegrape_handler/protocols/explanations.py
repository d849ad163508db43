"""Predictions with explanations, `/explanations/NAME`, and KServe's path for them, `/v1/models/NAME:explain`.

The requests are those of `predictions.py`. In the responses a prediction has one key more, or it is a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from numpy.typing import NDArray

from vinegrape_handler.accept import preferred
from vinegrape_handler.answer import CONTENT_TYPE
from vinegrape_handler.classifier import FittedImage
from vinegrape_handler.errors import BadRequest, NoImage, NotFound, RequestError
from vinegrape_handler.explanation import draw_overlay, heat_map
from vinegrape_handler.protocols.predictions import Form, only_value, respond_to_image, respond_to_instances
from vinegrape_handler.protocols.route import Call, Classified, Model, Pending, Response, Result, Route, error_response
from vinegrape_handler.request import read_request, text_headers

_PNG = "image/png"
_DECIMALS = 3  # the values are shown as colours of 256 steps


def routes(model: Model) -> dict[str, Route]:
    """Return the routes by path."""
    name = model.metadata.name
    return dict.fromkeys((f"/explanations/{name}", f"/v1/models/{name}:explain"), route(model))


def route(model: Model) -> Route:
    """Return the route of explanations."""
    return Route(partial(_read, model), error_response)


class _Explained(NamedTuple):
    """The form of the explained predictions that a request asks for.

    Attributes:
        form: of the predictions.
        classes: names of all classes, in the order of the activation maps.
        class_: the class to explain; None for the most probable one of each image.
    """

    form: Form
    classes: Sequence[str]
    class_: str | None

    def apply(self, result: Result) -> Any:
        """Return what the response contains about an image."""
        prediction = self.form.apply(result)
        if isinstance(result, RequestError):
            return prediction
        name, activation_map, image = self._choose(result)
        heat = heat_map(activation_map, image)
        values = [[round(value, _DECIMALS) for value in row] for row in heat.tolist()]
        explanation = {"class": name, "width": heat.shape[1], "height": heat.shape[0], "values": values}
        return {**prediction, "explanation": explanation}

    def draw(self, results: Sequence[Result]) -> Response:
        """Return the picture of the only image."""
        (result,) = results
        if isinstance(result, RequestError):
            return error_response(result)
        _, activation_map, image = self._choose(result)
        return Response(draw_overlay(activation_map, image), content_type=_PNG)

    def _choose(self, result: Classified) -> tuple[str, NDArray[Any], FittedImage]:
        """Return the class to explain, its activation map, and the image."""
        scores = result.scores
        index = int(scores.probabilities.argmax()) if self.class_ is None else self.classes.index(self.class_)
        if scores.activation_maps is None or scores.image is None:
            raise AssertionError("`Model.explains` has been checked")
        return self.classes[index], scores.activation_maps[index], scores.image


def _read(model: Model, call: Call) -> Pending:
    if not model.explains:
        raise NotFound(
            "The model gives no explanations: its network computes no activation maps. If its architecture has them, "
            "export it again with this version of vinegrape."
        )
    request = read_request(call.row, call.headers, model.settings.max_instances)
    sources = (call.query, request.parameters)
    form, class_ = Form.of(*sources), only_value("class", sources)
    classes = model.metadata.classes
    if form.huggingface:
        raise BadRequest("The parameter format is for predictions without explanations. Leave it out.")
    if class_ is not None and class_ not in classes:
        raise BadRequest(f"The parameter class is {class_[:40]!r}; it must be one of {', '.join(classes)}.")
    explained = _Explained(form, classes, class_)
    draws = preferred(text_headers(call.headers).get("accept", ""), (CONTENT_TYPE, _PNG)) == _PNG
    match request.kind:
        case "image" if draws:
            return Pending(request.images, explained.draw)
        case "image":
            return Pending(request.images, partial(respond_to_image, explained.apply))
        case "instances" if draws:
            raise BadRequest("Only one image can be explained as a PNG. Accept application/json for several.")
        case "instances":
            return Pending(request.images, partial(respond_to_instances, explained.apply), is_list=True)
        case _:
            raise NoImage("The request carries no image. POST it to this path, as you would for a prediction.")
