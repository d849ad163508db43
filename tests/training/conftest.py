"""Fixtures of the tests of training."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.colours import draw_colours


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """A folder of two classes that are easy to classify: 10 red and 10 blue images, 32 x 32, each in another shade."""
    return draw_colours(tmp_path / "colours", 10)
