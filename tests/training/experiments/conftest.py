"""Fixtures of the tests that replace training by a stand-in."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.support.colours import draw_colours


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten red and ten blue images."""
    return draw_colours(tmp_path_factory.mktemp("images") / "colours", 10)


@pytest.fixture
def plots_are_not_rendered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write empty plots in tests that train nothing, because rendering would take most of their time.

    Fixtures of a module are not affected: they render their plots.
    """
    if not request.node.get_closest_marker("trains"):
        monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: path.touch())
