"""The progress bar of all commands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """Iterate over items and show a progress bar on standard error. The bar disappears at the end.

    Args:
        items: what to iterate over.
        description: text before the bar.
        total: number of items, if `items` has no length.
    """
    try:
        from rich.console import Console
        from rich.progress import track
    except ImportError:  # rich belongs to the extra `train`; drawing and checking images also work without it
        return items
    return track(items, description, total=total, console=Console(stderr=True), transient=True)
