"""The model's answers to the archive's own images, compared with those recorded at export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vinegrape_handler.classifier import Classifier
from vinegrape_handler.errors import ArchiveError, RequestError
from vinegrape_handler.metadata import SelfCheck
from vinegrape_handler.weights import Backend

# Between processors and precisions the same weights differ in the third decimal at most; a wrong preprocessing
# or wrong weights differ in the first.
_SELF_CHECK_TOLERANCE = 0.05


def check_answers(classifier: Classifier, folder: Path, backend: Backend, checks: Sequence[SelfCheck]) -> None:
    """Ask the model about pictures of its self-check, which also warms it up.

    Raises:
        ArchiveError: an answer differs from what was recorded when the archive was made.
    """
    for check in checks:
        if backend not in check.probabilities:
            raise ArchiveError(f"The archive's self-check has no answers for {backend}. Export the model again.")
        (result,) = classifier.classify([(folder / check.file).read_bytes()])
        if isinstance(result, RequestError):
            raise ArchiveError(f"The self-check picture {check.file} failed: {result}")
        difference = float(np.abs(result - np.array(check.probabilities[backend])).max())
        if not difference <= _SELF_CHECK_TOLERANCE:  # NaN is not
            raise ArchiveError(
                f"The self-check of {check.file} with {backend} is off by {difference:.3f}, more than "
                f"{_SELF_CHECK_TOLERANCE}: {result.tolist()} instead of {check.probabilities[backend]}."
            )
