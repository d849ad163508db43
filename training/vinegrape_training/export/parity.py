"""The parity check of every export: compare the files that are served with the model that was trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vinegrape_handler.networks import Network, Outputs
from vinegrape_handler.weights import Backend
from vinegrape_training.errors import ParityError

# The larger of the two batch sizes that must give equal probabilities
_BATCH = 8


@dataclass(frozen=True)
class ParityLimits:
    """Limits of the parity check. A difference is the largest absolute difference of any probability of any image.

    Attributes:
        fp32_difference: largest difference between a float32 file and the trained model.
        fp32_batch_difference: largest difference between batches of 1 and 8, for a float32 file.
        int8_batch_difference: largest difference between batches of 1 and 8, for the int8 file.
        int8_agreement: smallest share of images, 0 to 1, for which the int8 file has the trained model's top-1 class.
    """

    fp32_difference: float = 1e-4
    fp32_batch_difference: float = 1e-5
    int8_batch_difference: float = 1e-3
    int8_agreement: float = 0.98


@dataclass(frozen=True)
class Parity:
    """Comparison of one exported file with the trained model.

    Attributes:
        agreement: share of images, 0 to 1, with the same top-1 class.
        difference: largest absolute difference of any probability.
        batch_difference: the same between batches of 1 and 8, both computed by the file.
    """

    agreement: float
    difference: float
    batch_difference: float


def measure(network: Network, images: NDArray[np.uint8], reference: NDArray[np.float32]) -> Parity:
    """Compare one exported file with the trained model.

    Args:
        network: the file, loaded as the service loads it.
        images: uint8 [N, S, S, 3], decoded and resized as in the service.
        reference: float32 [N, C], probabilities of the trained model.
    """
    single = run(network, images, 1)
    batched = run(network, images, _BATCH)
    return Parity(
        agreement=float((batched.argmax(1) == reference.argmax(1)).mean()),
        difference=float(np.abs(batched - reference).max()),
        batch_difference=float(np.abs(batched - single).max()),
    )


def run(network: Network, images: NDArray[np.uint8], batch_size: int) -> NDArray[np.float32]:
    """Compute float32 probabilities [N, C] of uint8 images [N, S, S, 3] in batches of `batch_size`."""
    return outputs(network, images, batch_size).probabilities


def outputs(network: Network, images: NDArray[np.uint8], batch_size: int) -> Outputs:
    """Compute probabilities and, if the network has them, OOD scores; arguments as for `run`."""
    starts = range(0, len(images), batch_size)
    results = [network(np.ascontiguousarray(images[start : start + batch_size])) for start in starts]
    scores = [result.ood_scores for result in results if result.ood_scores is not None]
    return Outputs(
        np.concatenate([result.probabilities for result in results]), np.concatenate(scores) if scores else None
    )


def check(parities: Mapping[Backend, Parity], limits: ParityLimits) -> None:
    """Check that every file is within the limits.

    Raises:
        ParityError: lists every file and figure outside the limits.
    """
    failures = [failure for backend, parity in parities.items() for failure in _failures(backend, parity, limits)]
    if failures:
        raise ParityError("The export failed the parity check; no model was written.\n  " + "\n  ".join(failures))


def _failures(backend: Backend, parity: Parity, limits: ParityLimits) -> list[str]:
    int8 = backend == "onnx_int8"
    least_agreement = limits.int8_agreement if int8 else 1.0
    most_batch_difference = limits.int8_batch_difference if int8 else limits.fp32_batch_difference
    failures = []
    if parity.agreement < least_agreement:
        failures.append(
            f"{backend}: the top-1 class is the same for {parity.agreement:.2%} of the images; "
            f"it must be at least {least_agreement:.2%}."
        )
    if not int8 and parity.difference > limits.fp32_difference:
        failures.append(
            f"{backend}: probabilities differ by {parity.difference:.2e}; at most {limits.fp32_difference} is allowed."
        )
    if parity.batch_difference > most_batch_difference:
        failures.append(
            f"{backend}: batches of 1 and {_BATCH} differ by {parity.batch_difference:.2e}; "
            f"at most {most_batch_difference} is allowed."
        )
    return failures


def as_metrics(parities: Mapping[Backend, Parity]) -> dict[str, float]:
    """Convert to the metric names of `metadata.json`: `parity_<backend>_<figure>`."""
    return {
        f"parity_{backend}_{name}": value
        for backend, parity in parities.items()
        for name, value in dataclasses.asdict(parity).items()
    }


def from_metrics(metrics: Mapping[str, float], backend: Backend) -> Parity:
    """Convert from the metric names of `metadata.json`."""
    names = [field.name for field in dataclasses.fields(Parity)]
    return Parity(**{name: metrics[f"parity_{backend}_{name}"] for name in names})


def table(parities: Mapping[Backend, Parity]) -> str:
    """Format the figures as aligned text."""
    lines = [f"{'':12} {'same top-1':>10} {'difference':>11} {'batch 1 or 8':>13}"]
    lines += [
        f"{backend:12} {parity.agreement:>10.2%} {parity.difference:>11.1e} {parity.batch_difference:>13.1e}"
        for backend, parity in parities.items()
    ]
    return "\n".join(lines)
