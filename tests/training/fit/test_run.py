from __future__ import annotations

from pathlib import Path

import pytest

from vinegrape_training.errors import RunError
from vinegrape_training.fit.run import Run


def test_a_folder_without_a_finished_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"has no run\.json"):
        Run.read(tmp_path)


def test_a_run_of_another_version_is_reported(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(RunError, match=r"not a run that this version .* can read"):
        Run.read(tmp_path)
