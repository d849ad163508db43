"""The outputs of a network that is trained with outliers."""

from __future__ import annotations

from torch import Tensor

EVEN_ODDS = 0.0
"""The OOD score of an image that, by the network, is as likely an outlier as not."""


def ood_score(outputs: Tensor, classes: int) -> Tensor:
    """Compute the OOD score, the log-odds that an image shows none of the classes, from a network's outputs.

    It is the logit of "something else" minus the logarithm of the sum of the exponentials of the classes' logits. The
    second term alone is the energy (Liu et al. 2020, "Energy-based Out-of-distribution Detection").

    Args:
        outputs: [N, classes + 1]; the last output is the logit of "something else".
        classes: number of classes.

    Returns:
        [N], the higher the less an image is like one of the classes.
    """
    return outputs[:, classes] - outputs[:, :classes].logsumexp(dim=1)
