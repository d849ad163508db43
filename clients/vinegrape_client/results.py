"""What the client returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vinegrape_client.errors import UnexpectedResponse, VinegrapeError
from vinegrape_client.images import Image


@dataclass(frozen=True)
class Model:
    """Name and version of the model that classified an image."""

    name: str
    version: str


@dataclass(frozen=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        label: the most probable class; None if the model does not know what the image shows, unless the server is told
            to return it all the same.
        probability: the highest probability, 0 to 1.
        probabilities: the probability of each class; they sum to 1, except for rounding.
        model: the model.
        known: whether the image shows one of the classes; None if the model cannot tell.
        ood_score: how far the image is from those of the training; None if the model does not compute it.
    """

    label: str | None
    probability: float
    probabilities: Mapping[str, float]
    model: Model
    known: bool | None = None
    ood_score: float | None = None

    @classmethod
    def from_json(cls, body: Any) -> Prediction:
        """Read the parsed JSON of a response.

        Raises:
            UnexpectedResponse: it is not a prediction.
        """
        try:
            model = Model(str(body["model"]["name"]), str(body["model"]["version"]))
            probabilities = {str(name): float(value) for name, value in body["probabilities"].items()}
            score = body.get("ood_score")
            return cls(
                body["label"],
                float(body["probability"]),
                probabilities,
                model,
                body.get("known"),
                None if score is None else float(score),
            )
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UnexpectedResponse(f"The response is not a prediction: {str(body)[:200]}") from error

    def to_json(self) -> dict[str, Any]:
        """Return the prediction in the form of the server's responses."""
        body: dict[str, Any] = {
            "label": self.label,
            "probability": self.probability,
            "probabilities": dict(self.probabilities),
        }
        if self.known is not None:
            body["known"] = self.known
        if self.ood_score is not None:
            body["ood_score"] = self.ood_score
        return {**body, "model": {"name": self.model.name, "version": self.model.version}}


@dataclass(frozen=True)
class Explanation:
    """How much each place of an image speaks for a class.

    Attributes:
        class_: the class.
        values: rows from the top, each from the left. The highest value is 1, and 0 means that the place does not speak
            for the class; all are 0 if none does.
        prediction: the prediction for the image.
    """

    class_: str
    values: tuple[tuple[float, ...], ...]
    prediction: Prediction

    @classmethod
    def from_json(cls, body: Any) -> Explanation:
        """Read the parsed JSON of a response.

        Raises:
            UnexpectedResponse: it is not an explained prediction.
        """
        prediction = Prediction.from_json(body)
        try:
            explanation = body["explanation"]
            values = tuple(tuple(map(float, row)) for row in explanation["values"])
            return cls(str(explanation["class"]), values, prediction)
        except (LookupError, TypeError, ValueError) as error:
            raise UnexpectedResponse(f"The response has no explanation: {str(body)[:200]}") from error


@dataclass(frozen=True)
class Result:
    """The result for one of many images: a prediction or an error.

    Attributes:
        image: the image as it was passed in.
        prediction: the prediction; None if there is an error.
        error: why the image was not classified; an OSError if its file cannot be read.
    """

    image: Image
    prediction: Prediction | None = None
    error: VinegrapeError | OSError | None = None


@dataclass(frozen=True)
class Description:
    """The description of the served model.

    Attributes:
        name: the model's name.
        version: its version.
        architecture: the network.
        classes: the classes, in the order of the network's output.
        input_size: pixels per side of the network's input.
        backend: the weights that the server runs.
        formats: the image formats that it accepts.
        max_image_bytes: maximum bytes of one encoded image.
        max_image_pixels: maximum pixels of one image.
        json: the whole response, with further keys.
    """

    name: str
    version: str
    architecture: str
    classes: tuple[str, ...]
    input_size: int
    backend: str
    formats: tuple[str, ...]
    max_image_bytes: int
    max_image_pixels: int
    json: Mapping[str, Any]

    @classmethod
    def from_json(cls, body: Any) -> Description:
        """Read the parsed JSON of a response.

        Raises:
            UnexpectedResponse: it is not a description.
        """
        try:
            return cls(
                str(body["name"]),
                str(body["version"]),
                str(body["architecture"]),
                tuple(body["classes"]),
                int(body["input_size"]),
                str(body["backend"]),
                tuple(body["formats"]),
                int(body["limits"]["image_bytes"]),
                int(body["limits"]["image_pixels"]),
                body,
            )
        except (LookupError, TypeError, ValueError) as error:
            raise UnexpectedResponse(f"The response does not describe a model: {str(body)[:200]}") from error
