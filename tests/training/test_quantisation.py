from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner
from vinegrape_training.quantisation import SHARES, main


def test_it_compares_each_file_with_the_float_one(run: Path) -> None:
    result = CliRunner().invoke(main, [str(run)])
    assert result.exit_code == 0, result.output
    title, _, _, everything, *quantised = result.stdout.splitlines()
    assert title == "10 images, small_cnn at 32 px"
    assert everything.startswith("| everything | 0 |")
    assert everything.endswith("| 0.0000 | 0.000 | 1.00 |")
    assert [row.split(" ")[1] for row in quantised] == [f"{share:.0%}" for share in SHARES]
    assert all(float(row.split(" | ")[3]) > 0 for row in quantised)
