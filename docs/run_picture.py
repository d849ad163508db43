"""Write docs/run.png, the curves of a short training on drawn leaves, for docs/training.md.

Run `.venv/bin/python docs/run_picture.py`; it takes some minutes. The curves are read from TensorBoard's files.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vinegrape_training.data.drawn_leaves import draw_dataset
from vinegrape_training.evaluation.plots import draw_curves
from vinegrape_training.fit.config import compose_config
from vinegrape_training.fit.process import prepare_process
from vinegrape_training.fit.train import train

DOCS = Path(__file__).parent
SETTINGS = (
    "model=small_cnn", "optimizer=adamw_scratch", "weights=none", "input_size=64", "augmentation=light",
    "logger=tensorboard",
)  # fmt: skip


def read_history(logs: Path) -> list[dict[str, float]]:
    """Read the metrics of each epoch, such as "train/loss", from the files that TensorBoard shows."""
    events = EventAccumulator(str(logs)).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if "/" in tag]  # without the number of the epoch
    rows = zip(*([event.value for event in events.Scalars(tag)] for tag in tags), strict=True)
    return [dict(zip(tags, row, strict=True)) for row in rows]


def draw_run(target: Path, images_per_class: int, epochs: int) -> None:
    """Train a small network on drawn leaves, and write the curves of this run to a PNG."""
    with tempfile.TemporaryDirectory() as temporary:
        leaves, run = Path(temporary) / "leaves", Path(temporary) / "run"
        draw_dataset(leaves, images_per_class=images_per_class, seed=0, side=64)
        length = (f"trainer.max_epochs={epochs}", f"trainer.patience={epochs}")
        train(compose_config([f"data.dir={leaves}", f"run_dir={run}", *SETTINGS, *length]))
        draw_curves(read_history(run / "logs"), target)


if __name__ == "__main__":
    prepare_process()
    draw_run(DOCS / "run.png", images_per_class=60, epochs=40)
