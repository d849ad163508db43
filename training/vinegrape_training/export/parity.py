"""The gate of every export: the files that will be served against the model that was trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vinegrape_handler.networks import Network
from vinegrape_handler.weights import Backend
from vinegrape_training.errors import ParityError

# Images in one call while the gate measures; also the larger of the two batch sizes that must agree
_BATCH = 8


@dataclass(frozen=True)
class ParityLimits:
    """What an export may differ by. All differences are the largest of any probability of any image.

    Attributes:
        fp32_difference: of a float32 file from the eager model.
        fp32_batch_difference: of a float32 file between batches of 1 and of 8.
        int8_batch_difference: of the int8 file between batches of 1 and of 8.
        int8_agreement: the least part of images, 0 to 1, with the same top-1 as the eager model.
    """

    fp32_difference: float = 1e-4
    fp32_batch_difference: float = 1e-5
    int8_batch_difference: float = 1e-3
    int8_agreement: float = 0.98


@dataclass(frozen=True)
class Parity:
    """One exported file against the eager model.

    Attributes:
        agreement: part of images, 0 to 1, with the same top-1.
        difference: the largest difference of any probability.
        batch_difference: the same, between batches of 1 and of 8 of the file itself.
    """

    agreement: float
    difference: float
    batch_difference: float


def measure(network: Network, images: NDArray[np.uint8], reference: NDArray[np.float32]) -> Parity:
    """Compare one exported file with the eager model.

    Args:
        network: the file, loaded as it is served.
        images: uint8 [N,S,S,3], decoded and resized as they are served.
        reference: float32 [N,C], the eager model's probabilities.
    """
    one = run(network, images, 1)
    eight = run(network, images, _BATCH)
    return Parity(
        agreement=float((eight.argmax(1) == reference.argmax(1)).mean()),
        difference=float(np.abs(eight - reference).max()),
        batch_difference=float(np.abs(eight - one).max()),
    )


def run(network: Network, images: NDArray[np.uint8], batch_size: int) -> NDArray[np.float32]:
    """Probabilities [N,C] of images [N,S,S,3], `batch_size` at a time."""
    batches = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
    return np.concatenate([network(batch) for batch in batches])


def check(parities: Mapping[Backend, Parity], limits: ParityLimits) -> None:
    """Refuse an export that differs by more than the limits.

    Raises:
        ParityError: says which file failed, by how much, and every failure at once.
    """
    failures = [f for backend, parity in parities.items() for f in _failures(backend, parity, limits)]
    if failures:
        raise ParityError("The export failed its gate; no model was written.\n  " + "\n  ".join(failures))


def _failures(backend: Backend, parity: Parity, limits: ParityLimits) -> list[str]:
    int8 = backend == "onnx_int8"
    least_agreement = limits.int8_agreement if int8 else 1.0
    most_batch_difference = limits.int8_batch_difference if int8 else limits.fp32_batch_difference
    failures = []
    if parity.agreement < least_agreement:
        failures.append(f"{backend}: top-1 agrees on {parity.agreement:.2%} of the images, not {least_agreement:.2%}.")
    if not int8 and parity.difference > limits.fp32_difference:
        failures.append(f"{backend}: probabilities differ by {parity.difference:.2e}, over {limits.fp32_difference}.")
    if parity.batch_difference > most_batch_difference:
        failures.append(
            f"{backend}: batches of 1 and {_BATCH} differ by {parity.batch_difference:.2e}, over "
            f"{most_batch_difference}."
        )
    return failures


def as_metrics(parities: Mapping[Backend, Parity]) -> dict[str, float]:
    """The figures for `metadata.json`, as `parity_<backend>_<figure>`."""
    return {
        f"parity_{backend}_{name}": value
        for backend, parity in parities.items()
        for name, value in dataclasses.asdict(parity).items()
    }


def table(parities: Mapping[Backend, Parity]) -> str:
    """The figures for a person to read."""
    lines = [f"{'':12} {'same top-1':>10} {'difference':>11} {'batch 1 to 8':>13}"]
    lines += [
        f"{backend:12} {p.agreement:>10.2%} {p.difference:>11.1e} {p.batch_difference:>13.1e}"
        for backend, p in parities.items()
    ]
    return "\n".join(lines)
