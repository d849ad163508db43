"""The reference of a model: what its predictions and images looked like when it was made. Drift is measured from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vinegrape_handler.errors import ArchiveError

CONFIDENCE = "confidence"
OOD_SCORE = "ood_score"
LABEL = "label"


@dataclass(frozen=True)
class Distribution:
    """How often the values of one property fall into each bin.

    Attributes:
        edges: the upper ends of all bins but the last, ascending. A bin contains its upper end.
        shares: of the values in each bin; one more than edges, and their sum is 1.

    Raises:
        ArchiveError: a value is invalid.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.edges or list(self.edges) != sorted(set(self.edges)):
            raise ArchiveError(f"A reference distribution has the edges {self.edges}; they must ascend.")
        if len(self.shares) != len(self.edges) + 1 or not _sum_to_one(self.shares):
            raise ArchiveError(
                f"A reference distribution with {len(self.edges)} edges has the shares {self.shares}; it must have one "
                "more, and they must sum to 1."
            )


@dataclass(frozen=True)
class Reference:
    """The distributions of predictions for images that the network was not trained on, and of their properties.

    Attributes:
        images: how many different images they come from.
        labels: share of the images by their most probable class.
        values: by property: `CONFIDENCE`, `OOD_SCORE` if the network computes one, and those of `properties.measure`.

    Raises:
        ArchiveError: a value is invalid.
    """

    images: int
    labels: dict[str, float]
    values: dict[str, Distribution]

    def __post_init__(self) -> None:
        if self.images < 1 or not _sum_to_one(tuple(self.labels.values())):
            raise ArchiveError(
                f"The reference has {self.images} images and the label shares {self.labels}; there must be images, and "
                "the shares must sum to 1."
            )

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Reference:
        """Read what `dataclasses.asdict` has made and JSON has stored.

        Raises:
            ArchiveError, LookupError, TypeError: the values are not a reference.
        """
        distributions = {
            name: Distribution(tuple(each["edges"]), tuple(each["shares"])) for name, each in values["values"].items()
        }
        return cls(values["images"], dict(values["labels"]), distributions)


def _sum_to_one(shares: tuple[float, ...]) -> bool:
    return min(shares, default=-1) >= 0 and abs(sum(shares) - 1) < 1e-3  # they are rounded
