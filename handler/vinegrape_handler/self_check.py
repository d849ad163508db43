"""Compare the model's probabilities for the archive's own images with those recorded at export.

`vinegrape_training.export.self_check` records them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vinegrape_handler.classifier import Classifier
from vinegrape_handler.errors import ArchiveError, RequestError
from vinegrape_handler.metadata import SelfCheck
from vinegrape_handler.weights import Backend

# The same weights differ at most in the third decimal between processors and precisions. Wrong preprocessing or wrong
# weights change the first decimal.
_TOLERANCE = 0.05


def run_self_check(classifier: Classifier, folder: Path, backend: Backend, checks: Sequence[SelfCheck]) -> None:
    """Classify the images of a self-check and compare the results. This also warms up the network.

    Args:
        classifier: the classifier to check.
        folder: the archive's folder of self-check images.
        backend: the backend that the classifier runs.
        checks: images to classify, with the probabilities recorded at export.

    Raises:
        ArchiveError: an image fails, a probability differs by more than 0.05 from the recorded one, or there is a
            threshold for an OOD score that the network does not compute.
    """
    for check in checks:
        if backend not in check.probabilities:
            raise ArchiveError(f"The archive's self-check has no probabilities for {backend}. Export the model again.")
        (result,) = classifier.classify([(folder / check.file).read_bytes()])
        if isinstance(result, RequestError):
            raise ArchiveError(f"The self-check image {check.file} failed: {result}")
        if classifier.metadata.ood_threshold is not None and result.ood_score is None:
            raise ArchiveError(
                f"The ood_threshold is {classifier.metadata.ood_threshold}, but the archive's weights for {backend} "
                "compute no ood_score. Leave the setting ood_threshold empty, or export the model again."
            )
        difference = float(np.abs(result.probabilities - np.array(check.probabilities[backend])).max())
        if not difference <= _TOLERANCE:  # also true for NaN
            raise ArchiveError(
                f"The self-check of {check.file} with {backend} is off by {difference:.3f}, more than {_TOLERANCE}: "
                f"{result.probabilities.tolist()} instead of {check.probabilities[backend]}."
            )
