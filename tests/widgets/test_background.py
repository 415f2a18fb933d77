import threading

import pytest

from napari_fedsam.errors import FedSamError
from napari_fedsam.widgets.background import Background, UnexpectedError

pytestmark = pytest.mark.window


@pytest.fixture
def background(qapp):
    background = Background()
    yield background
    background.close()


def test_results_come_back_to_the_windows_thread(background, qtbot):
    found = []
    here = threading.get_ident()

    def done(ident):
        found.append((ident != here, threading.get_ident() == here))

    background.run("lane", threading.get_ident, done, pytest.fail)
    assert not background.idle
    qtbot.waitUntil(lambda: background.idle)
    assert found == [(True, True)]


def test_jobs_of_a_lane_run_in_order(background, qtbot):
    first = threading.Event()
    order = []
    background.run("lane", lambda: (first.wait(30), order.append(1)), lambda _: None, pytest.fail)
    background.run("lane", lambda: order.append(2), lambda _: None, pytest.fail)
    background.run("other", first.set, lambda _: None, pytest.fail)
    qtbot.waitUntil(lambda: background.idle)
    assert order == [1, 2]


def test_user_errors_arrive_as_they_are(background, qtbot):
    errors = []

    def fail():
        raise FedSamError("The disk is full.")

    background.run("lane", fail, pytest.fail, errors.append)
    qtbot.waitUntil(lambda: background.idle)
    assert str(errors[0]) == "The disk is full."


def test_unforeseen_errors_become_one_sentence_and_are_logged(background, qtbot, caplog):
    errors = []
    background.run("lane", lambda: 1 / 0, pytest.fail, errors.append)
    qtbot.waitUntil(lambda: background.idle)
    assert isinstance(errors[0], UnexpectedError)
    assert "ZeroDivisionError" in str(errors[0])
    assert "division by zero" in caplog.text


def test_idle_is_told_after_the_follow_up(background, qtbot):
    with qtbot.waitSignal(background.idle_changed):
        background.run("lane", lambda: None, lambda _: None, pytest.fail)
    with qtbot.waitSignal(background.idle_changed):
        qtbot.waitUntil(lambda: background.idle)


def test_closing_waits_for_threads_and_delivers_nothing_more(background, qtbot):
    begun, delivered = threading.Event(), []
    background.run("lane", begun.set, delivered.append, delivered.append)
    background.run("lane", lambda: None, delivered.append, delivered.append)
    assert begun.wait(30)
    background.close()
    qtbot.wait(1)
    assert delivered == []
    assert not [thread for thread in threading.enumerate() if "napari-fedsam" in thread.name]
    background.run("lane", pytest.fail, pytest.fail, pytest.fail)
