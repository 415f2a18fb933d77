"""Two scans of one patient, linked by the crosshair, in a real window."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QColor, QFocusEvent, QWheelEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDialog, QLabel
from scipy.spatial.transform import Rotation

from napari_fedsam.imaging.display_grid import DisplayGrid
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.widgets.keys import ACTIONS, shown_keys
from napari_fedsam.widgets.layers import image_layer_data
from napari_fedsam.widgets.section_parts import Section

pytestmark = pytest.mark.window


def oblique_scan() -> Scan:
    """The ball's head once more: tilted slices of 4 mm, finer pixels, another field of view."""
    tilt = Rotation.from_euler("xyz", (12, -8, 20), degrees=True).as_matrix()
    matrix = tilt @ np.diag([1.0, 1.0, -1.0])
    geometry = Geometry(
        (90, 80, 14), (0.8, 0.8, 4.0), (-6.0, -18.0, 2.0), tuple(float(v) for v in matrix.ravel())
    )
    points = geometry.index_to_world(np.stack(np.indices((14, 80, 90))[::-1], axis=-1))
    inside = np.linalg.norm(points - np.array([34.0, 30.0, -18.0]), axis=-1) < 14
    return Scan(np.where(inside, 50, 400).astype(np.int16), geometry, "t2", Path("t2.nii"))


def add(viewer, scan):
    data, options, _ = image_layer_data(scan)
    return viewer.add_image(data, **options)


@pytest.fixture
def t1(ball) -> Scan:
    return ball


@pytest.fixture
def t2(hands, widget, viewer, t1) -> Scan:
    """A second scan, open but not the one that is annotated."""
    scan = oblique_scan()
    add(viewer, scan)
    hands.rest()
    widget.choose_layer(viewer.layers["ball"])
    hands.rest()
    return scan


@pytest.fixture
def crosshair(widget):
    return widget.session.crosshair


def unfold(section):
    """Unfold the section of the widget that this is the content of."""
    while not isinstance(section, Section):
        section = section.parentWidget()
    if not section.isExpanded():
        QTest.mouseClick(section.toggleButton(), Qt.MouseButton.LeftButton)


def push(widget, name, hands):
    unfold(widget.link_section)
    QTest.mouseClick(widget.link_section.buttons[name], Qt.MouseButton.LeftButton)
    hands.rest()


def lines(widget):
    """The crosshair on the canvas: the lines that are seen."""
    return [line.geometry() for line in widget._links.lines.lines if line.isVisible()]


def middle(widget) -> QPoint:
    """Where the four lines point to."""
    left, _right, up, _down = (line.geometry() for line in widget._links.lines.lines)
    return QPoint(up.x(), left.y())


def test_the_key_shows_a_crosshair_and_takes_it_off(hands, widget, t1):
    assert lines(widget) == []
    hands.press("Shift+X")
    assert widget.link_section.buttons["toggle_link"].isChecked()
    assert len(lines(widget)) == 4
    assert (middle(widget) - hands.pixel(31.5, 31.5)).manhattanLength() <= 2
    hands.press("Shift+X")
    assert not widget.link_section.buttons["toggle_link"].isChecked()
    assert lines(widget) == []


def test_a_click_moves_it_and_is_a_prompt_all_the_same(hands, widget, t1, crosshair):
    push(widget, "toggle_link", hands)
    hands.click(40, 22)
    assert len(widget.session.ask.clicks) == 1
    assert crosshair.position == pytest.approx((6, 22, 40), abs=0.3)
    assert (middle(widget) - hands.pixel(40, 22)).manhattanLength() <= 2


def test_what_was_done_on_a_scan_is_there_again_after_the_other_one(hands, widget, viewer, t2):
    session, first = widget.session, widget.session.scan
    hands.click(40, 22)
    hands.rest()
    asked = session.ask
    widget.choose_layer(viewer.layers["t2"])
    hands.rest()
    assert session.scan is t2
    assert session.ask.is_empty
    widget.choose_layer(viewer.layers["ball"])
    hands.rest()
    assert session.scan is first
    assert session.ask == asked
    hands.press("U")
    assert session.ask.is_empty


def test_a_scan_whose_layer_was_removed_begins_anew(hands, widget, viewer, t2):
    hands.click(40, 22)
    first = widget.session.scan
    layer = viewer.layers["ball"]
    widget.choose_layer(viewer.layers["t2"])
    hands.rest()
    viewer.layers.remove(layer)
    widget.choose_layer(add(viewer, first))
    hands.rest()
    assert widget.session.scan is first
    assert widget.session.ask.is_empty


def test_a_drag_leaves_it_where_it_is(hands, widget, t1, crosshair):
    hands.press("Shift+X")
    before = crosshair.point
    hands.press("G")
    hands.drag((20, 20), (50, 45))
    assert len(widget.session.ask.boxes) == 1
    assert crosshair.point == before


def test_it_follows_the_cursor_while_the_key_is_held(hands, widget, t1, crosshair):
    QTest.keyPress(hands.canvas, Qt.Key.Key_Slash)
    hands.move(hands.pixel(12, 50))
    assert crosshair.is_on
    assert crosshair.position == pytest.approx((6, 50, 12), abs=0.3)
    QTest.keyRelease(hands.canvas, Qt.Key.Key_Slash)
    hands.move(hands.pixel(40, 40))
    assert crosshair.position == pytest.approx((6, 50, 12), abs=0.3)
    assert widget.session.ask.is_empty


def test_it_stops_following_when_the_release_goes_elsewhere(hands, t1, crosshair):
    QTest.keyPress(hands.canvas, Qt.Key.Key_Slash)
    hands.move(hands.pixel(12, 50))
    QApplication.sendEvent(hands.canvas, QFocusEvent(QEvent.Type.FocusOut))
    hands.move(hands.pixel(40, 40))
    assert crosshair.position == pytest.approx((6, 50, 12), abs=0.3)


def test_it_stays_on_the_point_when_the_picture_is_zoomed_and_moved(hands, widget, viewer, t1):
    hands.press("Shift+X")
    hands.click(40, 22)
    camera = viewer.scene.camera
    camera.zoom *= 1.7
    camera.center = (*camera.center[:-1], camera.center[-1] + 5)
    hands.rest()
    assert (middle(widget) - hands.pixel(40, 22)).manhattanLength() <= 2


def test_turning_the_plane_cuts_through_the_point(hands, widget, t1, crosshair):
    hands.press("Shift+X")
    hands.click(40, 22)
    point = crosshair.point
    for axis, index in ((1, 22), (2, 40), (0, 6)):
        widget.scan_section.planes.button(axis).click()
        hands.rest()
        assert (widget.session.view.slice.axis, widget.session.view.slice.index) == (axis, index)
        assert crosshair.point == point
        assert len(lines(widget)) == 4


def test_in_3_d_and_in_naparis_grid_there_is_none(hands, widget, viewer, t1):
    hands.press("Shift+X")
    viewer.dims.ndisplay = 3
    assert lines(widget) == []
    viewer.dims.ndisplay = 2
    assert len(lines(widget)) == 4
    viewer.canvas.grid.enabled = True
    assert lines(widget) == []
    assert "grid is on" in widget.link_section.state.text()
    viewer.canvas.grid.enabled = False
    assert len(lines(widget)) == 4


def test_the_other_scan_opens_on_its_slice_nearest_to_the_point_and_back(
    hands, widget, viewer, t1, t2, crosshair
):
    push(widget, "toggle_link", hands)
    hands.press("N")
    hands.click(45, 20)
    before, point = widget.session.view.slice, crosshair.point
    expected = DisplayGrid.of(t2).nearest_slice(point, 0)
    hands.press("Alt+X")
    assert widget.session.scan is t2
    assert widget.session.view.slice.index == expected != widget.session.view.shape[0] // 2
    assert viewer.dims.point[0] == pytest.approx(expected * 4)
    assert crosshair.point == point
    x, y = crosshair.position[2], crosshair.position[1]
    assert (middle(widget) - hands.pixel(x, y)).manhattanLength() <= 2
    push(widget, "switch_scan", hands)
    assert widget.session.scan is t1
    assert widget.session.view.slice == before


def test_without_the_link_a_scan_opens_in_its_middle(hands, widget, t2):
    hands.press("N")
    hands.press("Alt+X")
    assert widget.session.view.slice.index == 7


def test_what_is_linked_is_said(hands, widget, viewer, t1, t2):
    state = widget.link_section.state
    assert not state.isVisible()
    push(widget, "toggle_link", hands)
    assert state.text() == "t2 is linked, by the coordinates in their files."
    viewer.layers.remove("t2")
    hands.rest()
    assert state.text() == (
        "Open another scan of the patient: it will show the point that you click here."
    )


def test_scans_of_two_frames_of_reference_are_not_linked(hands, widget, viewer, t1):
    first = replace(t1, name="ct", frame_of_reference="1.2.3")
    second = replace(oblique_scan(), frame_of_reference="1.2.4")
    add(viewer, second)
    add(viewer, first)
    viewer.layers.remove("ball")
    hands.rest()
    hands.press("Shift+C")
    hands.click(40, 22)
    assert widget.link_section.state.text() == (
        "t2 is not linked: its DICOM frame of reference is not that of ct; register one to the "
        "other first."
    )
    assert widget._links.side.pictures == []
    hands.press("Alt+X")
    assert widget.session.view.slice.index == 7


def test_a_picture_is_not_linked(hands, widget, viewer, t1):
    pixels = np.random.default_rng(0).integers(0, 255, (1, 40, 50, 3)).astype(np.uint8)
    photo = Scan(pixels, Geometry.identity((50, 40)), "photo", Path("p.png"), is_anatomical=False)
    hands.press("Shift+X")
    add(viewer, photo)
    hands.rest()
    assert lines(widget) == []
    hands.click(20, 20)
    sentence = "photo is not linked: it is a picture, which has no place in the patient."
    assert widget.link_section.state.text() == sentence
    hands.press("Alt+X")
    assert widget.link_section.state.text() == sentence
    assert len(lines(widget)) == 4


@pytest.fixture
def picture(hands, widget, t2):
    """T2 beside the canvas, with the crosshair at a click on T1."""
    hands.press("Shift+C")
    hands.click(40, 24)
    (picture,) = widget._links.side.pictures
    return picture


def test_side_by_side_shows_the_nearest_slice_with_the_crosshair_at_the_same_place(
    hands, widget, viewer, t2, picture, crosshair
):
    assert widget.link_section.buttons["toggle_link"].isChecked()
    assert picture.scan is t2
    assert picture.isVisible()
    for _ in range(3):
        hands.press("N")
        grid = DisplayGrid.of(t2)
        assert picture.slice.index == grid.nearest_slice(crosshair.point, 0)
        x, y = picture.crosshair
        back = np.array(picture.point_at(QPointF(x, y)))
        # Half a slice of 4 mm, and the rest of the way within its plane.
        assert np.linalg.norm(back - np.array(crosshair.point)) <= 2.01
    field = widget._links.lines.field
    shrink = min(picture.width() / field.width, picture.height() / field.height)
    assert x - picture.width() / 2 == pytest.approx((field.x - field.width / 2) * shrink)
    # A mm is as long on T2 as on T1, but for the smaller view.
    across = QPointF(x + 20 * field.zoom * shrink, y)
    assert np.linalg.norm(np.array(picture.point_at(across)) - back) == pytest.approx(20)


def test_the_pictures_follow_a_canvas_that_is_resized(hands, widget, viewer, picture, qtbot):
    canvas = viewer.window._qt_viewer.canvas.native
    before = canvas.height()
    window = viewer.window._qt_window
    window.resize(window.width(), window.height() + 200)
    qtbot.waitUntil(lambda: canvas.height() != before)
    assert picture._field == widget._links.lines.field
    assert picture._field.height == canvas.height()


def test_the_picture_shows_the_acquired_pixels_in_the_layers_window(
    hands, viewer, t2, picture, crosshair
):
    layer = viewer.layers["t2"]
    layer.contrast_limits = (0, 500)
    key = picture.slice
    shown = picture.grab().toImage()
    display = t2.orientation.to_display(t2.pixels)
    place = DisplayGrid.of(t2).to_position(crosshair.point)
    inside = key.pixels(display)[round(place[1]), round(place[2])]
    x, y = picture.crosshair
    grey = shown.pixelColor(round(x) + 3, round(y) + 3).red()
    assert grey == pytest.approx(inside / 500 * 255, abs=3)
    # To the right of the gap there is the line.
    assert shown.pixelColor(round(x) + 30, round(y)).name() == "#ffcc33"


def test_the_picture_shows_the_scans_own_mask(hands, widget, viewer, t2, picture, crosshair):
    x, y = picture.crosshair
    place = round(x) + 3, round(y) + 3
    plain = picture.grab().toImage().pixelColor(*place)
    assert plain.red() == plain.green() == plain.blue()
    widget.choose_layer(viewer.layers["t2"])
    hands.rest()
    structure = widget.session.view.structure
    widget.segmentation_layer.data[:] = structure.value
    widget.choose_layer(viewer.layers["ball"])
    hands.rest()
    (again,) = widget._links.side.pictures
    shown = again.grab().toImage().pixelColor(*place)
    colour = QColor(structure.color)
    # Between the picture's grey and the structure's colour.
    for part, full in ((shown.red(), colour.red()), (shown.blue(), colour.blue())):
        assert min(plain.red(), full) - 2 <= part <= max(plain.red(), full) + 2
    assert shown != plain


def test_a_click_in_the_picture_moves_the_canvas(hands, widget, t1, t2, picture, crosshair):
    x, y = picture.crosshair
    target = QPoint(round(x) + 25, round(y) - 18)
    point = picture.point_at(target.toPointF())
    QTest.mouseClick(picture, Qt.MouseButton.LeftButton, pos=target)
    hands.rest()
    assert crosshair.point == pytest.approx(point)
    assert widget.session.view.slice.index == DisplayGrid.of(t1).nearest_slice(point, 0)
    x, y = crosshair.position[2], crosshair.position[1]
    assert (middle(widget) - hands.pixel(x, y)).manhattanLength() <= 2
    assert len(widget.session.ask.clicks) == 1


def test_the_wheel_steps_through_the_slices_of_the_picture(hands, widget, picture, crosshair):
    before = picture.slice.index
    place = QPointF(50, 50)
    event = QWheelEvent(
        place,
        picture.mapToGlobal(place),
        QPoint(),
        QPoint(0, -120),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(picture, event)
    hands.rest()
    assert picture.slice.index == before + 1
    assert DisplayGrid.of(picture.scan).to_position(crosshair.point)[0] == pytest.approx(before + 1)


def test_a_double_click_annotates_the_scan_of_the_picture(hands, widget, t1, t2, picture):
    QTest.mouseDClick(picture, Qt.MouseButton.LeftButton, pos=QPoint(90, 90))
    hands.rest()
    assert widget.session.scan is t2
    (other,) = widget._links.side.pictures
    assert other.scan is t1


def test_a_point_outside_the_other_scan_is_said_there(hands, picture, crosshair, t2):
    crosshair.move_to((900.0, 30.0, -18.0))
    assert picture.crosshair is None
    picture.grab()
    crosshair.turn(False)
    assert picture.crosshair is None
    picture.grab()


def test_the_same_key_or_napari_takes_the_pictures_off(hands, widget, viewer, picture):
    hands.press("Shift+C")
    assert widget._links.side is None
    assert not widget.link_section.buttons["toggle_side_by_side"].isChecked()
    hands.press("Shift+C")
    side = widget._links.side
    viewer.window.remove_dock_widget(side)
    hands.rest()
    assert widget._links.side is None
    assert not widget.link_section.buttons["toggle_side_by_side"].isChecked()


def test_closing_the_panel_takes_everything_off(hands, widget, viewer, picture):
    canvas_children = hands.canvas.findChildren(QLabel)
    assert canvas_children
    widget.shut_down()
    hands.qtbot.wait(1)
    assert "napari-fedsam: linked scans" not in viewer.window.dock_widgets
    assert not [
        child for child in hands.canvas.children() if child.objectName().endswith("crosshair")
    ]


def test_the_keys_are_listed(hands, widget):
    QTest.keyClicks(hands.canvas, "?")
    dialog = next(each for each in widget.findChildren(QDialog) if "keys" in each.objectName())
    texts = [label.text() for label in dialog.findChildren(QLabel)]
    key = texts[texts.index("Link the open scans by a crosshair, or stop that") - 1]
    assert key == shown_keys(next(each for each in ACTIONS if each.name == "toggle_link"))
    assert key.endswith("X")
    dialog.close()
