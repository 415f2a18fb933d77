"""Whole volumes by keys and mouse in a real window, with the real model."""

import threading

import numpy as np
import pytest
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDialog

from napari_fedsam.annotation.volume_tools import fill_holes

pytestmark = pytest.mark.window

CENTRE = (34, 30)


def dice(mask, truth) -> float:
    return 2 * np.sum(mask & truth) / (mask.sum() + truth.sum())


def truth_of(scan):
    return scan.orientation.to_display(scan.pixels) >= 250


def settle(widget, hands, qtbot):
    """Wait for work and for the measuring that follows it."""
    hands.rest()
    qtbot.waitUntil(lambda: not widget._volume_panel._resting.isActive(), timeout=10_000)
    hands.rest()


def test_one_click_becomes_the_whole_ball_in_one_undo_step(ball, hands, widget, qtbot):
    hands.click(*CENTRE)
    hands.press("Alt+J")
    settle(widget, hands, qtbot)
    found = widget.segmentation_layer.data == 1
    assert dice(found, truth_of(ball)) > 0.85
    assert "ml, longest diameter" in widget.volume_section.size.text()
    hands.press("U")
    assert not widget.segmentation_layer.data.any()
    assert widget.session.ask.prompt_count == 1
    hands.press("Shift+U")
    assert np.array_equal(widget.segmentation_layer.data == 1, found)


def test_it_runs_in_any_plane_and_within_the_range(ball, hands, widget, qtbot):
    widget._display.binding.show_plane(1)
    hands.rest()
    assert widget.volume_section.last.value() == 64
    widget.session.view.show_slice(1, 30)
    hands.rest()
    widget.session.add_box(20, 2, 48, 10)
    hands.rest()
    widget.volume_section.first.setValue(29)
    widget.volume_section.last.setValue(33)
    hands.press("Alt+J")
    settle(widget, hands, qtbot)
    changed = np.flatnonzero(widget.segmentation_layer.data.any(axis=(0, 2)))
    assert set(changed) <= set(range(28, 33))
    assert len(changed) >= 3


def test_accepted_slices_are_left_alone(ball, hands, widget, qtbot):
    hands.click(*CENTRE)
    hands.press("K")
    (record,) = widget.store.records()
    index = widget.session.view.slice.index
    before = widget.segmentation_layer.data[index].copy()
    hands.press("Alt+J")
    settle(widget, hands, qtbot)
    assert np.array_equal(widget.segmentation_layer.data[index], before)
    assert widget.segmentation_layer.data[index + 1].any()
    assert [each.id for each in widget.store.records()] == [record.id]


def test_nothing_to_start_from_is_explained(ball, hands, widget, monkeypatch):
    told = []
    monkeypatch.setattr("napari_fedsam.widgets.dock.show_error", told.append)
    hands.press("Alt+J")
    hands.press("Alt+K")
    assert "no slice with structure 1 to start from" in told[0]
    assert "Interpolation needs two slices" in told[1]


def test_propagation_is_cancelled_by_key_and_keeps_what_it_found(ball, hands, widget, qtbot):
    hands.click(*CENTRE)
    bar = widget.volume_section.progress
    widget.do("propagate")
    assert bar.isVisible()
    widget.do("cancel_volume")
    settle(widget, hands, qtbot)
    assert not bar.isVisible()
    slices = np.flatnonzero(widget.segmentation_layer.data.any(axis=(1, 2)))
    assert 1 <= len(slices) <= 2
    assert widget.volume_section.buttons["propagate"].isEnabled()


def test_slices_between_accepted_ones_are_filled(ball, hands, widget, qtbot):
    for index in (4, 8):
        widget.session.view.show_slice(0, index)
        hands.rest()
        hands.click(*CENTRE)
        hands.press("K")
    hands.press("Alt+K")
    settle(widget, hands, qtbot)
    data = widget.segmentation_layer.data == 1
    assert dice(data[4:9], truth_of(ball)[4:9]) > 0.8
    hands.press("U")
    assert not widget.segmentation_layer.data[5:8].any()


def test_volume_tools_and_measures(ball, hands, widget, qtbot):
    truth = truth_of(ball)
    layer = widget.segmentation_layer
    holed = truth.copy()
    holed[6, 28:31, 33:36] = False
    holed[0, 0:2, 0:2] = True
    layer.data_setitem(np.nonzero(holed), 1)
    settle(widget, hands, qtbot)
    hands.press("Alt+G")
    assert (layer.data[6, 28:31, 33:36] == 1).all()
    hands.press("Alt+Q")
    settle(widget, hands, qtbot)
    assert np.array_equal(layer.data == 1, truth)
    millilitres = truth.sum() * 3 / 1000
    assert f"{millilitres:.4g} ml" in widget.volume_section.size.text()
    hands.press("Alt+B")
    assert dice(layer.data == 1, truth) > 0.95
    for _ in range(3):
        hands.press("U")
    assert np.array_equal(layer.data == 1, holed)
    hands.press("U")
    assert not layer.data.any()


def test_what_is_painted_while_a_tool_runs_stays(ball, hands, widget, qtbot):
    truth = truth_of(ball)
    layer, panel = widget.segmentation_layer, widget._volume_panel
    holed = truth.copy()
    holed[6, 28:31, 33:36] = False
    layer.data_setitem(np.nonzero(holed), 1)
    begun, painted, finished = threading.Event(), threading.Event(), threading.Event()

    def tool(volume, spacing):
        begun.set()
        assert painted.wait(30)
        return fill_holes(volume, spacing)

    panel.apply(tool)
    assert begun.wait(30)
    layer.data_setitem((np.zeros(4, int), np.arange(4), np.arange(4)), 1)
    painted.set()
    # The same lane: it begins when the tool has ended, of which the window has not heard yet.
    panel._background.run("volume", finished.set, lambda _: None, pytest.fail)
    assert finished.wait(30)
    layer.data_setitem((np.array([6]), np.array([29]), np.array([34])), 2)
    before = layer.data.copy()
    settle(widget, hands, qtbot)
    expected = np.where(truth, 1, before)
    expected[6, 29, 34] = 2
    assert np.array_equal(layer.data, expected)
    hands.press("U")
    assert np.array_equal(layer.data, before)


def test_structures_are_chosen_by_alt_and_a_number(ball, hands, widget, monkeypatch):
    told = []
    monkeypatch.setattr("napari_fedsam.widgets.dock.show_error", told.append)
    widget.set_structure("cyst")
    widget.set_structure("vessel")
    hands.press("Alt+2")
    assert widget.session.view.structure.name == "cyst"
    assert widget.segmentation_layer.selected_label == 2
    assert widget.structure_section.structures.currentData() == 2
    hands.press("Alt+3")
    assert widget.session.view.structure.name == "vessel"
    hands.press("Alt+9")
    assert told == ["There is no structure 9: the list has 3; add it first."]


def test_others_are_spared_by_key(ball, hands, widget):
    hands.click(*CENTRE)
    hands.press("K")
    before = widget.segmentation_layer.data.copy()
    widget.set_structure("cyst")
    hands.press("Shift+B")
    assert widget.prompt_section.buttons["toggle_preserve"].isChecked()
    assert widget.segmentation_layer.preserve_labels
    hands.press("G")
    hands.drag((4, 4), (40, 40))
    hands.press("K")
    data = widget.segmentation_layer.data
    assert (data[before == 1] == 1).all()


@pytest.mark.parametrize("key", ["Alt+Slash", "Question"])
def test_all_keys_are_listed(ball, hands, widget, key):
    hands.viewer.window._qt_window.activateWindow()
    hands.press(key)
    (dialog,) = [
        each
        for each in QApplication.topLevelWidgets()
        if isinstance(each, QDialog) and each.objectName() == "napari-fedsam keys"
    ]
    assert dialog.isVisible()
    dialog.close()
    QTest.qWait(1)
