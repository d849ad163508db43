"""Images whose right answers are known before a server runs, and what became of a request."""

from __future__ import annotations

import contextlib
import json
import zipfile
from pathlib import Path
from typing import NamedTuple

from vinegrape_handler.errors import ArchiveError
from vinegrape_handler.metadata import METADATA_FILE, SELF_CHECK_FOLDER, Metadata
from vinegrape_handler.weights import BACKENDS, WEIGHTS_FILES, choose_backend

# As in the workers' self-check: the same weights differ at most in the third decimal between processors
_TOLERANCE = 0.05

RIGHT, WRONG, REFUSED, LOST = "right", "wrong", "refused", "lost"


class KnownImage(NamedTuple):
    """An encoded image and the right answer to it.

    Attributes:
        image: the encoded image.
        probabilities: the probability of each class; the largest allowed difference is 0.05.
    """

    image: bytes
    probabilities: dict[str, float]


class Answer(NamedTuple):
    """What became of one request.

    Attributes:
        transport: "rest", "http2" or "grpc".
        due: when the request was due, in seconds of the monotonic clock.
        seconds: from then to the response.
        outcome: "right"; "wrong"; "refused" for status 429; "lost" for a connection error, a timeout and every other
            status.
        detail: the status or the error.
    """

    transport: str
    due: float
    seconds: float
    outcome: str
    detail: str

    @property
    def end(self) -> float:
        """When the response was complete."""
        return self.due + self.seconds


def known_images(archive: Path) -> tuple[KnownImage, ...]:
    """Read the self-check images of an archive, whose probabilities were recorded at the export.

    The probabilities are those of the weights that a server without a GPU uses.

    Raises:
        ArchiveError: there are none, or two of them have the same answer: then nobody could see that they are swapped.
    """
    with zipfile.ZipFile(archive) as packed:
        metadata = Metadata.from_json(packed.read(METADATA_FILE))
        backends = tuple(backend for backend in BACKENDS if WEIGHTS_FILES[backend] in packed.namelist())
        backend = choose_backend("auto", backends, on_gpu=False)
        images = tuple(
            KnownImage(
                packed.read(f"{SELF_CHECK_FOLDER}/{check.file}"),
                dict(zip(metadata.classes, check.probabilities[backend], strict=True)),
            )
            for check in metadata.self_check
        )
    for number, image in enumerate(images):
        if any(_equal(image.probabilities, other.probabilities) for other in images[:number]):
            raise ArchiveError(f"{archive}: two self-check images have the same probabilities. Export the model again.")
    if not images:
        raise ArchiveError(f"{archive} has no self-check images. Export the model again.")
    return images


def judge(known: KnownImage, status: int, body: bytes) -> tuple[str, str]:
    """Return outcome and detail of a complete response."""
    if status == 200:
        right = _is_right(known, body)
        return (RIGHT, "200") if right else (WRONG, f"another answer: {body[:60]!r}")
    return (REFUSED if status == 429 else LOST), f"{status} ({reason(body)})"


def reason(body: str | bytes) -> str:
    """Return the message of an error in our JSON, or the beginning of another text."""
    with contextlib.suppress(ValueError, LookupError, TypeError):
        body = str(json.loads(body)["error"]["message"])
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    return text[:80] or "no reason"


def _is_right(known: KnownImage, body: bytes) -> bool:
    try:
        probabilities = json.loads(body)["probabilities"]
        return _equal(known.probabilities, probabilities)
    except (ValueError, LookupError, TypeError, AttributeError):
        return False


def _equal(expected: dict[str, float], given: dict[str, float]) -> bool:
    return expected.keys() == given.keys() and all(abs(expected[k] - given[k]) <= _TOLERANCE for k in expected)
