"""Holding a key shows what a click would give, in a real window."""

import numpy as np
import pytest
from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QFocusEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

pytestmark = pytest.mark.window

CENTRE = (34, 30)


def dice(mask, truth) -> float:
    return 2 * np.sum(mask & truth) / (mask.sum() + truth.sum())


def truth_of(scan, key):
    return key.pixels(scan.orientation.to_display(scan.pixels)) >= 250


@pytest.fixture
def held(ball, hands):
    """Hold the key with the cursor on the ball."""
    hands.move(hands.pixel(*CENTRE))
    QTest.keyPress(hands.canvas, Qt.Key.Key_Comma)
    hands.rest()


def outline(widget):
    return np.squeeze(widget.preview_layer.data)


def test_while_the_key_is_held_the_ball_under_the_cursor_is_outlined(held, ball, hands, widget):
    mask = widget.session.answering.hover.preview.mask
    assert dice(mask, truth_of(ball, widget.session.view.slice)) > 0.85
    assert outline(widget).any()
    assert widget.preview_layer.opacity < 1
    assert widget.session.ask.is_empty
    assert not len(widget.points_layer.data)
    QTest.keyRelease(hands.canvas, Qt.Key.Key_Comma)
    hands.rest()
    assert not outline(widget).any()
    assert widget.session.preview is None


def test_moving_the_mouse_renews_it(held, hands, widget):
    before = widget.session.answering.hover.preview
    hands.move(hands.pixel(30, 26))
    after = widget.session.answering.hover.preview
    (click,) = after.ask.clicks
    assert (click.x, click.y) == pytest.approx((30, 26), abs=0.7)
    assert after is not before


def test_without_the_key_moving_the_mouse_shows_nothing(ball, hands, widget):
    hands.move(hands.pixel(*CENTRE))
    assert widget.session.answering.hover.preview is None
    assert not outline(widget).any()


def test_beside_the_image_nothing_is_shown(held, hands, widget):
    hands.move(hands.pixel(-6, 30))
    assert widget.session.answering.hover.preview is None
    assert not outline(widget).any()
    hands.move(hands.pixel(*CENTRE))
    assert outline(widget).any()


def test_a_click_meanwhile_becomes_a_prompt_and_is_what_remains(held, ball, hands, widget):
    hands.click(*CENTRE)
    assert len(widget.session.ask.clicks) == 1
    hands.move(hands.pixel(5, 5))
    assert widget.session.answering.hover.preview is not None
    QTest.keyRelease(hands.canvas, Qt.Key.Key_Comma)
    hands.rest()
    assert widget.preview_layer.opacity == 1
    assert dice(widget.session.preview.mask, truth_of(ball, widget.session.view.slice)) > 0.85
    assert len(widget.session.ask.clicks) == 1


def test_on_another_slice_it_is_renewed(held, hands, widget):
    hands.press("N")
    found = widget.session.answering.hover.preview
    assert found.place.slice == widget.session.view.slice


@pytest.mark.parametrize("event", [QFocusEvent(QEvent.Type.FocusOut), QEvent(QEvent.Type.Leave)])
def test_it_ends_when_the_release_or_the_cursor_goes_elsewhere(held, hands, widget, event):
    QApplication.sendEvent(hands.canvas, event)
    hands.rest()
    assert widget.session.answering.hover.preview is None
    assert not outline(widget).any()


def test_while_painting_on_the_answer_the_answer_stays(held, hands, widget):
    QTest.keyRelease(hands.canvas, Qt.Key.Key_Comma)
    hands.click(*CENTRE)
    hands.press("J")
    shown = outline(widget).copy()
    QTest.keyPress(hands.canvas, Qt.Key.Key_Comma)
    hands.rest()
    hands.move(hands.pixel(5, 5))
    assert np.array_equal(outline(widget), shown)


def test_a_closed_widget_listens_no_more(held, hands, widget, viewer):
    assert viewer.mouse_move_callbacks
    widget.shut_down()
    assert viewer.mouse_move_callbacks == []
    hands.move(hands.pixel(5, 5))
    assert widget.session.answering.hover.preview is None
