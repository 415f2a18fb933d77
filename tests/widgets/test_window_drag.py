"""Holding a key and moving the mouse changes window and level, in a real window."""

import pytest
from qtpy.QtCore import QEvent, QPoint, Qt
from qtpy.QtGui import QFocusEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

pytestmark = pytest.mark.window

START = QPoint(300, 300)


def move(hands, right, up):
    """Move the mouse to a place beside the start."""
    hands.move(START + QPoint(right, -up))


@pytest.fixture
def held(ball, hands, widget):
    """The window at the start of a drag, with the key held."""
    QTest.keyPress(hands.canvas, Qt.Key.Key_Period)
    move(hands, 0, 0)
    return widget.session.view.window


def test_to_the_right_the_window_becomes_wider_about_its_level(held, hands, widget):
    move(hands, 150, 0)
    window = widget.session.view.window
    assert window.width == pytest.approx(2 * held.width)
    assert window.level == pytest.approx(held.level)
    move(hands, -150, 0)
    assert widget.session.view.window.width == pytest.approx(held.width / 2)
    window = widget.session.view.window
    limits = hands.viewer.layers["ball"].contrast_limits
    assert tuple(limits) == pytest.approx((window.low, window.high))


def test_up_the_scan_becomes_brighter(held, hands, widget):
    move(hands, 0, 150)
    window = widget.session.view.window
    assert window.level == pytest.approx(held.level - held.width / 2)
    assert window.width == pytest.approx(held.width)


def test_no_prompt_is_drawn_and_nothing_moves_when_the_key_is_up(held, hands, widget):
    centre = hands.viewer.scene.camera.center
    move(hands, 60, 20)
    QTest.keyRelease(hands.canvas, Qt.Key.Key_Period)
    window = widget.session.view.window
    move(hands, 200, 200)
    assert widget.session.view.window == window != held
    assert widget.session.ask.is_empty
    assert hands.viewer.scene.camera.center == centre


def test_it_ends_when_the_release_goes_elsewhere(held, hands, widget):
    QApplication.sendEvent(hands.canvas, QFocusEvent(QEvent.Type.FocusOut))
    move(hands, 100, 100)
    assert widget.session.view.window == held


def test_without_a_scan_the_key_does_nothing(hands, viewer):
    count = len(viewer.mouse_move_callbacks)
    QTest.keyPress(hands.canvas, Qt.Key.Key_Period)
    assert len(viewer.mouse_move_callbacks) == count
    QTest.keyRelease(hands.canvas, Qt.Key.Key_Period)
