"""The database of feedback: what it computes, what it removes, what survives."""

import sqlite3

import numpy as np
import pytest

from tests.support.clock import Clock
from vinegrape_handler.errors import SettingError
from vinegrape_server.feedback.request import Feedback
from vinegrape_server.feedback.store import FILE, FeedbackStore, Summary

DAY_S = 86_400
RIGHT = Feedback("v1", "Ak", 0.75, True, "Ak")
WRONG = Feedback("v1", "Ak", 0.75, True, "Nazli")


@pytest.fixture
def clock() -> Clock:
    return Clock(1e9)


@pytest.fixture
def store(tmp_path, clock):
    with FeedbackStore(tmp_path / "feedback", max_rows=10, max_days=7, clock=clock) as store:
        yield store


def test_accuracy_and_calibration_can_be_worked_out_on_paper(store):
    store.add([RIGHT, RIGHT, RIGHT, WRONG])
    summary = store.summaries()["v1"]
    assert (summary.correct, summary.wrong, summary.accuracy) == (3, 1, 0.75)
    assert summary.calibration_error == pytest.approx(0)  # three of four are right, as 0.75 says
    store.add([WRONG] * 4)
    assert store.summaries()["v1"].calibration_error == pytest.approx(0.75 - 3 / 8)


def test_images_without_a_label_do_not_count_for_the_accuracy(store):
    other, variety = (Feedback("v1", None, 0.4, False, truth) for truth in ("other", "Ak"))
    store.add([other, other, variety])
    assert store.summaries() == {"v1": Summary(unknown_other=2, unknown_variety=1)}
    assert store.summaries()["v1"].accuracy is None


def test_the_label_of_another_thing_is_wrong(store):
    store.add([Feedback("v1", "Ak", 0.6, True, "other")])
    assert store.summaries()["v1"].wrong == 1


def test_versions_are_summarised_separately(store):
    store.add([RIGHT, Feedback("v2", "Ak", 1, True, "Nazli")])
    assert {version: summary.accuracy for version, summary in store.summaries().items()} == {"v1": 1, "v2": 0}


def test_the_calibration_error_is_that_of_the_evaluation(tmp_path):
    from vinegrape_training.evaluation.calibration import calibration_error

    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([1, 1], 300)
    labels = generator.integers(0, 2, 300)
    names = ("Ak", "Nazli")
    with FeedbackStore(tmp_path, 1000, 7) as store:
        store.add(
            [
                Feedback("v1", names[row.argmax()], float(row.max()), True, names[label])
                for row, label in zip(probabilities, labels, strict=True)
            ]
        )
        assert store.summaries()["v1"].calibration_error == pytest.approx(calibration_error(probabilities, labels))


def test_the_oldest_rows_are_removed(store):
    store.add([WRONG] * 8)
    store.add([RIGHT] * 9)
    assert (store.summaries()["v1"].correct, store.summaries()["v1"].wrong) == (9, 1)
    store.add([RIGHT] * 25)
    assert store.summaries()["v1"].correct == 10


def test_old_rows_do_not_count_and_are_removed(store, clock, tmp_path):
    store.add([WRONG])
    clock.seconds += 7 * DAY_S + 1
    assert store.summaries() == {}
    store.add([RIGHT])
    with sqlite3.connect(tmp_path / "feedback" / FILE) as connection:
        assert connection.execute("SELECT count(*) FROM feedback").fetchone() == (1,)
    connection.close()


def test_feedback_survives_a_restart_and_two_servers_share_it(store, tmp_path):
    store.add([RIGHT])
    with FeedbackStore(tmp_path / "feedback", 10, 7, clock=store._clock) as second:
        second.add([WRONG])
        assert second.summaries() == store.summaries() == {"v1": store.summaries()["v1"]}
        assert store.summaries()["v1"].accuracy == 0.5


def test_a_list_that_cannot_be_stored_is_not_stored_in_part(store):
    with pytest.raises(sqlite3.Error):
        store.add([RIGHT, Feedback("v1", "Ak", [], True, "Ak")])
    assert store.summaries() == {}


@pytest.mark.parametrize("content", [b"This is no database, but a text that is long enough to be read as one." * 20])
def test_a_file_that_is_no_database_is_a_setting_error(tmp_path, content):
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(SettingError, match="feedback_folder"):
        FeedbackStore(tmp_path, 10, 7)
    assert (tmp_path / FILE).read_bytes() == content


def test_a_folder_that_cannot_be_created_is_a_setting_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingError, match="feedback_folder"):
        FeedbackStore(tmp_path / "file", 10, 7)


def test_a_newer_format_is_not_touched(tmp_path):
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(SettingError, match="format 2"):
        FeedbackStore(tmp_path, 10, 7)
