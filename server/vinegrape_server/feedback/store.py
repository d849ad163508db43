"""The database of feedback, in a file of SQLite."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vinegrape_handler.errors import SettingError
from vinegrape_server.feedback.request import OTHER, Feedback

FILE = "feedback.sqlite3"

_FORMAT = 1  # of the database, in its `user_version`
_BUSY_S = 2  # how long to wait for another server that writes to the same file
_CALIBRATION_BINS = 15  # as in the model's evaluation
_DAY_S = 86_400


@dataclass(frozen=True)
class Summary:
    """The feedback to one version of the model.

    Attributes:
        correct: predictions whose label is the truth.
        wrong: predictions with another label.
        unknown_other: images that the model did not know, and that show none of its varieties.
        unknown_variety: images that the model did not know, although they show one of its varieties.
        calibration_error: expected calibration error of the predictions with a label, 15 bins, 0 to 1; None without
            any.
    """

    correct: int = 0
    wrong: int = 0
    unknown_other: int = 0
    unknown_variety: int = 0
    calibration_error: float | None = None

    @property
    def accuracy(self) -> float | None:
        """Share of the predictions with a label that are correct, 0 to 1. None without any."""
        return self.correct / (self.correct + self.wrong) if self.correct + self.wrong else None


class FeedbackStore:
    """Keeps feedback, up to a number and an age. Threads may share it, and servers may share its file.

    Args:
        folder: of the file; it is created.
        max_rows: the oldest feedback beyond this number is removed.
        max_days: older feedback is removed.
        clock: Unix time in seconds.

    Raises:
        SettingError: the folder cannot be written, or the file is not a database of feedback.
    """

    def __init__(self, folder: Path, max_rows: int, max_days: int, clock: Callable[[], float] = time.time) -> None:
        self._max_rows = max_rows
        self._max_age_s = max_days * _DAY_S
        self._clock = clock
        self._lock = threading.Lock()
        path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=_BUSY_S, check_same_thread=False)
            _prepare(self._connection)
        except (OSError, sqlite3.Error) as error:
            raise SettingError(
                f"Cannot keep feedback in {path} (feedback_folder): {error}. Set another folder."
            ) from error

    def __enter__(self) -> FeedbackStore:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.close()

    def add(self, feedback: Sequence[Feedback]) -> None:
        """Store all pieces of feedback, and remove the oldest ones that are too many or too old.

        Raises:
            sqlite3.Error: they cannot be stored, for example because the disk is full. Then none is stored.
        """
        now = self._clock()
        rows = [(now, each.version, each.label, each.probability, each.known, each.truth) for each in feedback]
        with self._transaction() as connection:
            connection.executemany("INSERT INTO feedback VALUES (NULL, ?, ?, ?, ?, ?, ?)", rows)
            connection.execute("DELETE FROM feedback WHERE time < ?", (now - self._max_age_s,))
            connection.execute("DELETE FROM feedback WHERE id <= (SELECT max(id) FROM feedback) - ?", (self._max_rows,))

    def summaries(self) -> dict[str, Summary]:
        """Summarise the feedback to each version of the model.

        Raises:
            sqlite3.Error: the file cannot be read.
        """
        query = """
            SELECT version, known, CASE WHEN known THEN label = truth ELSE truth = ? END,
                   min(CAST(probability * ? AS INTEGER), ?), count(*), sum(probability)
            FROM feedback WHERE time >= ? GROUP BY 1, 2, 3, 4
        """
        oldest = self._clock() - self._max_age_s
        with self._transaction() as connection:
            rows = connection.execute(query, (OTHER, _CALIBRATION_BINS, _CALIBRATION_BINS - 1, oldest)).fetchall()
        by_version: dict[str, list[tuple[bool, bool, int, int, float]]] = defaultdict(list)
        for version, known, is_right, bin_, count, total in rows:
            by_version[version].append((bool(known), bool(is_right), bin_, count, total))
        return {version: _summarise(groups) for version, groups in by_version.items()}

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._connection:
            yield self._connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Create the table in a new file, or check that the file has this format."""
    connection.execute("PRAGMA journal_mode = WAL")
    with connection:
        (format_,) = connection.execute("PRAGMA user_version").fetchone()
        if format_ not in (0, _FORMAT):
            raise sqlite3.DatabaseError(f"it has format {format_}, and this version of vinegrape reads {_FORMAT}")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS feedback (id INTEGER PRIMARY KEY, time REAL, version TEXT, label TEXT, "
            "probability REAL, known INTEGER, truth TEXT)"
        )
        connection.execute(f"PRAGMA user_version = {_FORMAT}")


def _summarise(groups: Sequence[tuple[bool, bool, int, int, float]]) -> Summary:
    """Summarise one version: groups of (known, right, bin of the probability, count, sum of the probabilities)."""
    counts: dict[tuple[bool, bool], int] = defaultdict(int)
    gaps: dict[int, float] = defaultdict(float)  # by bin: number of correct predictions, minus the one expected
    for known, is_right, bin_, count, total in groups:
        counts[known, is_right] += count
        if known:
            gaps[bin_] += count * is_right - total
    with_label = counts[True, True] + counts[True, False]
    return Summary(
        correct=counts[True, True],
        wrong=counts[True, False],
        unknown_other=counts[False, True],
        unknown_variety=counts[False, False],
        calibration_error=sum(map(abs, gaps.values())) / with_label if with_label else None,
    )
