"""Render the model card of an archive from its metadata: every figure in the card comes from there."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, StrictUndefined

from vinegrape_handler.metadata import Metadata
from vinegrape_handler.weights import BACKENDS
from vinegrape_training.evaluation.figures import TestFigures
from vinegrape_training.export import parity

CARD_FILE = "MODEL_CARD.md"

_TEMPLATE = Path(__file__).with_name("model_card.md.j2")


def write_card(metadata: Metadata, archive: Path) -> Path:
    """Write `MODEL_CARD.md` to the folder of an archive, and return its path."""
    card = archive.with_name(CARD_FILE)
    card.write_text(render(metadata, archive.stat().st_size), encoding="utf-8")
    return card


def render(metadata: Metadata, archive_bytes: int) -> str:
    """Render the card as Markdown.

    Args:
        metadata: the archive's metadata, with the figures of a test.
        archive_bytes: size of the archive file.

    Raises:
        ExportError: the model was never tested.
    """
    environment = Environment(  # noqa: S701 - Markdown needs no HTML escapes
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        model=metadata,
        metrics=metadata.metrics,
        test=TestFigures.from_metrics(metadata.metrics, metadata.classes),
        parities={backend: parity.from_metrics(metadata.metrics, backend) for backend in BACKENDS},
        archive_mb=archive_bytes / 1e6,
    )
