"""While the cursor rests or the button is down, the click is answered, in a real window."""

import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

pytestmark = pytest.mark.window

CENTRE = (34, 30)


@pytest.fixture
def rested(ball, hands, widget, qtbot):
    """Let the cursor rest on the ball until the click is answered that nobody has given."""
    foreseen = widget.session.answering.foreseen
    widget.use_positive_point()
    hands.rest()
    hands.move(hands.pixel(*CENTRE))
    qtbot.waitUntil(lambda: foreseen.answer is not None, timeout=60_000)
    hands.rest()
    return foreseen


@pytest.fixture
def predicted(widget, monkeypatch):
    """Count what the model is asked."""
    predictor = widget.session.model.predictor
    asked, predict = [], predictor.predict

    def count(*given, **options):
        asked.append(given)
        return predict(*given, **options)

    monkeypatch.setattr(predictor, "predict", count)
    return asked


def test_the_click_takes_the_answer_that_is_there(rested, predicted, hands, widget):
    foreseen = rested.answer
    hands.click(*CENTRE)
    assert widget.session.preview is foreseen
    assert widget.preview_layer.data.any()
    assert not predicted


def test_nothing_is_shown_before_the_click(rested, widget):
    assert widget.session.preview is None
    assert not widget.preview_layer.data.any()
    assert not len(widget.points_layer.data)


def test_a_click_elsewhere_is_answered_anew(rested, predicted, hands, widget):
    hands.click(24, 22)
    assert widget.session.answering.is_current
    assert len(predicted) == 1


@pytest.fixture
def pressed(ball, hands, widget, qtbot):
    """Press the button on the ball, without a rest before, and hold it until the model is done."""
    widget.use_positive_point()
    hands.rest()
    where = hands.pixel(*CENTRE)
    QTest.mousePress(hands.canvas, Qt.MouseButton.LeftButton, pos=where)
    qtbot.waitUntil(lambda: widget.session.answering.foreseen.answer is not None, timeout=60_000)
    return where


def test_the_answer_begins_when_the_button_goes_down(pressed, predicted, hands, widget) -> None:
    assert not len(widget.points_layer.data)
    QTest.mouseRelease(hands.canvas, Qt.MouseButton.LeftButton, pos=pressed)
    hands.rest()
    assert widget.preview_layer.data.any()
    assert not predicted


def test_a_drag_gives_no_click(ball, hands, widget) -> None:
    widget.use_positive_point()
    hands.rest()
    hands.drag(CENTRE, (24, 22))
    assert widget.session.preview is None
    assert not len(widget.points_layer.data)


@pytest.mark.parametrize(
    ("button", "modifier"),
    [
        (Qt.MouseButton.RightButton, Qt.KeyboardModifier.NoModifier),
        (Qt.MouseButton.LeftButton, Qt.KeyboardModifier.ShiftModifier),
    ],
    ids=["right", "shift"],
)
def test_what_gives_no_point_is_not_answered_ahead(ball, hands, widget, button, modifier) -> None:
    widget.use_positive_point()
    hands.rest()
    QTest.mousePress(hands.canvas, button, modifier, pos=hands.pixel(*CENTRE))
    assert widget.session.answering.foreseen.pending is None
    QTest.mouseRelease(hands.canvas, button, modifier, pos=hands.pixel(*CENTRE))


def test_other_tools_expect_no_click(ball, hands, widget, qtbot):
    widget.use_box()
    hands.rest()
    hands.move(hands.pixel(*CENTRE))
    assert not widget._answer_ahead._resting.isActive()


def test_a_closed_widget_listens_no_more(rested, widget, viewer):
    ahead = widget._answer_ahead
    widget.shut_down()
    assert ahead._moved not in viewer.mouse_move_callbacks
    assert ahead._pressed not in viewer.mouse_drag_callbacks
