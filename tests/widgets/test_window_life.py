"""The widget comes and goes without a trace, and looks at home in napari's themes."""

import gc
import threading
import weakref

import pytest
from napari.components import ViewerModel
from napari.utils.action_manager import action_manager
from napari.utils.key_bindings import coerce_keybinding
from qtpy.QtCore import QEvent, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QLabel, QScrollArea

from napari_fedsam.widgets.keys import ACTIONS
from napari_fedsam.widgets.layers import image_layer_data
from napari_fedsam.widgets.prompt_layers import POINTS, SHAPES

pytestmark = pytest.mark.window


def our_keys():
    return {coerce_keybinding(action.key) for action in ACTIONS}


def bound():
    return our_keys() & set(ViewerModel.class_keymap)


def our_threads():
    return [thread.name for thread in threading.enumerate() if "napari-fedsam" in thread.name]


def docked(widget):
    """The dock widget that holds our widget."""
    return widget.parent()


def test_closing_the_dock_widget_leaves_no_trace(ball, hands, viewer, widget):
    hands.click(34, 30)
    hands.press("K")
    assert bound() == our_keys()
    docked(widget).destroyOnClose()
    QTest.qWait(1)
    assert bound() == set()
    assert our_threads() == []
    assert POINTS not in viewer.layers
    assert SHAPES not in viewer.layers
    assert "segmentation" in viewer.layers
    canvas = viewer.window._qt_viewer.canvas.native
    names = {label.objectName() for label in canvas.findChildren(QLabel)}
    assert not {name for name in names if "napari-fedsam" in name}
    # The viewer goes on without us.
    viewer.dims.set_current_step(0, 1)
    viewer.layers.remove("ball")
    QTest.keyClick(canvas, Qt.Key.Key_K)


def test_closing_the_window_stops_everything(ball, hands, viewer, widget):
    hands.click(34, 30)
    viewer.close()
    assert our_threads() == []
    assert bound() == set()


def test_closing_in_the_middle_of_work_is_quiet(ball, hands, viewer, widget):
    widget.session.add_click(34, 30)
    widget.session.view.next_slice()
    viewer.close()
    QTest.qWait(1)
    assert our_threads() == []


def test_no_widget_is_left_over(make_widget):
    before = set(QApplication.topLevelWidgets())
    widget = make_widget()
    docked(widget).destroyOnClose()
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    QTest.qWait(1)
    left = {each for each in QApplication.topLevelWidgets() if each.isVisible()} - before
    assert left == set()


def test_a_closed_widget_gives_its_memory_back(viewer, make_widget, new_ball):
    widget = make_widget()
    scan = new_ball()
    data, options, _ = image_layer_data(scan)
    viewer.add_image(data, **options)
    QTest.qWait(1)
    kept = [weakref.ref(each) for each in (widget.session, widget.session.view, scan)]
    docked(widget).destroyOnClose()
    viewer.layers.clear()
    del widget, scan, data, options
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    QTest.qWait(1)
    gc.collect()
    assert [ref() for ref in kept] == [None, None, None]


def test_it_can_be_opened_again(ball, hands, viewer, widget, make_widget):
    hands.click(34, 30)
    hands.press("K")
    docked(widget).destroyOnClose()
    again = make_widget(widget.site_folder)
    assert bound() == our_keys()
    assert again.session.scan is ball
    assert len(again.store.records()) == 1
    assert again.cases_section.model.rowCount() == 1
    assert again.segmentation_layer.data.any()


def test_keys_work_with_the_focus_on_the_widget(ball, hands, widget):
    hands.click(34, 30)
    button = widget.prompt_section.buttons["accept"]
    button.setFocus()
    QTest.keyClick(button, Qt.Key.Key_K)
    hands.rest()
    assert len(widget.store.records()) == 1


def test_typing_a_name_is_no_command(ball, hands, widget):
    hands.click(34, 30)
    line = widget.structure_section.name
    line.setFocus()
    QTest.keyClicks(line, "Kidney")
    hands.rest()
    assert line.text() == "Kidney"
    assert widget.store.records() == []
    QTest.keyClick(line, Qt.Key.Key_Return)
    assert widget.session.view.structure.name == "Kidney"
    assert line.text() == ""


def test_tooltips_name_the_keys_and_follow_their_change(widget):
    accept = widget.prompt_section.buttons["accept"]
    assert accept.toolTip() == "Accept the mask and keep it as a case (K)"
    name = "napari-fedsam:accept"
    action_manager.unbind_shortcut(name)
    action_manager.bind_shortcut(name, "J")
    assert accept.toolTip().endswith("(J)")


def test_every_button_explains_itself(widget):
    from qtpy.QtWidgets import QAbstractButton

    ours = (
        widget.prompt_section,
        widget.scan_section,
        widget.structure_section,
        widget.cases_section,
        widget.federation_section,
    )
    buttons = [button for section in ours for button in section.findChildren(QAbstractButton)]
    unexplained = [
        button.text()
        for button in buttons
        if button.text() not in ("Axial", "Coronal", "Sagittal") and not button.toolTip()
    ]
    assert len(buttons) > 15
    assert unexplained == []


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_nothing_is_cut_off_in_either_theme(ball, hands, viewer, widget, theme):
    viewer.theme = theme
    hands.rest()
    from qtpy.QtWidgets import QPushButton

    area = widget.findChild(QScrollArea)
    assert area.widget().width() <= area.viewport().width()
    for button in area.widget().findChildren(QPushButton):
        if button.isVisible():
            assert button.width() >= button.sizeHint().width() - 1, button.text()
            assert button.height() >= button.fontMetrics().height(), button.text()


def test_research_use_is_said_once(widget):
    said = [label for label in widget.findChildren(QLabel) if "research use" in label.text()]
    assert len(said) == 1


def test_sections_fold_and_adapt_to_their_content(ball, hands, widget):
    from napari_fedsam.widgets.section_parts import Section

    section = widget.findChildren(Section)[0]
    assert section.content().isVisible()
    section.toggleButton().click()
    assert not section.content().isVisible()
    section.toggleButton().click()
    assert section.content().isVisible()
    assert section.content().height() >= section.content().minimumSizeHint().height()
