"""Opening, choosing, turning and closing scans in a real window."""

import threading
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_fedsam.cases.errors import CaseStoreError
from napari_fedsam.imaging.errors import ImagingError, SeriesInfo
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.readers import read_mask, read_scan, read_segmentation
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.writers import write_mask
from napari_fedsam.widgets import scan_opening
from napari_fedsam.widgets.layers import image_layer_data, scan_of
from napari_fedsam.widgets.mask_layers import PREVIEW, ROLE_KEY, SEGMENTATION
from napari_fedsam.widgets.series_dialog import SeriesDialog

pytestmark = pytest.mark.window


def written(scan: Scan, path: Path) -> Path:
    image = sitk.GetImageFromArray(scan.pixels)
    scan.geometry.stamp(image)
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture
def scan(ball):
    return ball


@pytest.fixture
def held(monkeypatch):
    """A gate that the end of reading a scan waits at."""
    gate = threading.Event()
    read = scan_opening.read_scan

    def read_and_wait(path, **options):
        scan = read(path, **options)
        assert gate.wait(60)
        return scan

    monkeypatch.setattr(scan_opening, "read_scan", read_and_wait)
    yield gate
    gate.set()


def letters(widget):
    return {edge: label.text() for edge, label in widget.edge_labels.items()}


def test_a_file_opens_in_a_worker(hands, widget, tmp_path, scan):
    path = written(scan, tmp_path / "second.nii.gz")
    opening = widget.open_scan(path)
    assert opening.layer is None
    assert not widget.idle
    hands.rest()
    assert scan_of(opening.layer) is widget.session.scan
    assert widget.scan_section.chosen_layer is opening.layer


def test_naparis_own_open_uses_a_worker_too(hands, viewer, widget, tmp_path, scan, held):
    path = written(scan, tmp_path / "third.nrrd")
    before = len(viewer.layers)
    assert viewer.open(path, plugin="napari-fedsam") == []
    assert len(viewer.layers) == before
    held.set()
    hands.qtbot.waitUntil(lambda: widget.session.scan is not scan, timeout=30_000)
    hands.rest()
    assert np.array_equal(widget.session.scan.pixels, scan.pixels)


def test_a_broken_file_is_told_by_name(hands, widget, tmp_path, told):
    path = tmp_path / "broken.nii.gz"
    path.write_bytes(b"no image")
    widget.open_scan(path)
    hands.rest()
    assert len(told) == 1
    assert "broken.nii.gz" in told[0]
    assert widget.session.scan is None


def test_one_of_several_series_is_picked(hands, widget, tmp_path, scan, monkeypatch):
    found_series = (SeriesInfo("1.2", "head", "MR", 20, 1), SeriesInfo("1.3", "thin", "MR", 90, 2))
    asked = []

    def read(path, *, series=None, watch=None):
        asked.append(series)
        if series is None:
            raise scan_opening.MultipleSeriesError("There are several.", found_series)
        return scan_copy

    scan_copy = Scan(scan.pixels, scan.geometry, "copy", Path("copy"), modality="MR")
    monkeypatch.setattr(scan_opening, "read_scan", read)
    with hands.qtbot.waitSignal(widget.session.view.scan_changed, timeout=30_000):
        scan_opening.ScanOpening(
            widget.viewer, tmp_path, ask_series=lambda found, _parent: found[1].uid
        )
    hands.rest()
    assert asked == [None, "1.3"]
    assert widget.session.scan is scan_copy


def test_the_series_dialog_offers_the_largest_first(qtbot):
    series = [SeriesInfo("1.2", "", "CT", 3, 1), SeriesInfo("1.3", "thin", "CT", 90, 2)]
    dialog = SeriesDialog(series)
    qtbot.addWidget(dialog)
    assert dialog.chosen == "1.3"
    assert [dialog.list.item(row).text() for row in range(2)] == [
        "CT series 1 (3 slices)",
        "CT series 2: thin (90 slices)",
    ]


def test_the_plane_opens_as_acquired_and_turns(hands, widget, scan):
    view = widget.session.view
    assert (view.slice.axis, widget.scan_section.planes.checkedId()) == (0, 0)
    assert letters(widget) == {"left": "R", "right": "L", "top": "A", "bottom": "P"}
    widget.scan_section.planes.button(1).click()
    hands.rest()
    assert view.slice.axis == 1
    assert widget.viewer.dims.order == (1, 0, 2)
    assert letters(widget) == {"left": "R", "right": "L", "top": "S", "bottom": "I"}
    widget.scan_section.planes.button(2).click()
    hands.rest()
    assert widget.viewer.dims.order == (2, 0, 1)
    assert letters(widget) == {"left": "A", "right": "P", "top": "S", "bottom": "I"}
    assert widget.scan_section.planes.checkedId() == 2


def test_letters_follow_transposed_axes_and_the_camera(hands, widget, scan):
    widget.viewer.dims.transpose()
    assert letters(widget) == {"left": "A", "right": "P", "top": "R", "bottom": "L"}
    widget.viewer.dims.transpose()
    widget.viewer.scene.camera.orientation2d = ("up", "left")
    assert letters(widget) == {"left": "L", "right": "R", "top": "P", "bottom": "A"}
    widget.viewer.scene.camera.orientation2d = ("down", "right")
    widget.viewer.dims.ndisplay = 3
    assert set(letters(widget).values()) == {""}


def test_sagittal_slices_that_were_acquired_so_are_shown_first(hands, widget):
    geometry = Geometry((30, 30, 9), (1, 1, 5), (0, 0, 0), (0, 0, 1, 1, 0, 0, 0, -1, 0))
    pixels = np.random.default_rng(0).integers(0, 99, (9, 30, 30)).astype(np.int16)
    scan = Scan(pixels, geometry, "sagittal", Path("s.nii"), modality="MR")
    data, options, _ = image_layer_data(scan)
    widget.viewer.add_image(data, **options)
    hands.rest()
    assert widget.session.view.slice.axis == 2
    assert widget.viewer.dims.order[0] == 2
    shown = widget.session.view.slice.pixels(widget.session.view.display)
    assert any(
        np.array_equal(np.sort(shown.ravel()), np.sort(plane.ravel())) for plane in scan.pixels
    )


def test_prompts_work_in_a_turned_plane(hands, widget, scan):
    widget.scan_section.planes.button(1).click()
    hands.rest()
    widget.viewer.dims.set_current_step(1, 30)
    hands.rest()
    hands.click(34, 6)
    (click,) = widget.session.ask.clicks
    assert (click.x, click.y) == pytest.approx((34, 6), abs=0.3)
    assert widget.preview_layer.data.shape == (12, 1, 64)
    hands.press("K")
    (record,) = widget.store.records()
    assert record.plane == "coronal"
    assert record.spacing == pytest.approx((3.0, 1.0))


def test_a_picture_has_neither_letters_nor_planes(hands, widget, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    path = tmp_path / "picture.png"
    sitk.WriteImage(sitk.GetImageFromArray(pixels, isVector=True), str(path))
    widget.open_scan(path)
    hands.rest()
    assert widget.session.scan.is_colour
    assert set(letters(widget).values()) == {""}
    assert not widget.scan_section.planes.button(0).isVisible()
    hands.press("G")
    hands.drag((10, 10), (30, 30))
    hands.press("K")
    (record,) = widget.store.records()
    assert record.shape == (40, 50, 3)
    assert record.spacing is None
    widget.save_mask(tmp_path / "mask.png")
    hands.rest()
    saved = read_mask(tmp_path / "mask.png", widget.session.scan)
    assert np.array_equal(saved[0], widget.segmentation_layer.data[0])


def test_another_scan_hides_the_first_and_keeps_its_segmentation(hands, widget, scan):
    hands.click(34, 30)
    hands.press("K")
    first, first_image = widget.segmentation_layer, widget.viewer.layers["ball"]
    other = Scan(scan.pixels[:, :40], Geometry.identity((64, 40, 12)), "other", Path("o.nii"))
    data, options, _ = image_layer_data(other)
    widget.viewer.add_image(data, **options)
    hands.rest()
    assert widget.session.scan is other
    assert widget.segmentation_layer is not first
    assert not first.visible
    assert not first_image.visible
    assert not widget.segmentation_layer.data.any()
    widget.choose_layer(first_image)
    hands.rest()
    assert widget.segmentation_layer is first
    assert first.visible
    assert first.data.any()


def test_what_could_not_be_kept_is_taken_off_the_scan_that_is_hidden_by_then(
    hands, widget, scan, told, monkeypatch
):
    gate = threading.Event()

    def fail_late(_new):
        assert gate.wait(60)
        raise CaseStoreError("The disk is full.")

    monkeypatch.setattr(widget.session.store, "accept", fail_late)
    hands.click(34, 30)
    QTest.keyClick(hands.canvas, Qt.Key.Key_K)
    first, first_image = widget.segmentation_layer, widget.viewer.layers["ball"]
    assert first.data.any()
    other = Scan(scan.pixels[:, :40], Geometry.identity((64, 40, 12)), "other", Path("o.nii"))
    data, options, _ = image_layer_data(other)
    widget.viewer.add_image(data, **options)
    gate.set()
    hands.rest()
    assert told == ["On ball, which is not shown now: The disk is full."]
    widget.choose_layer(first_image)
    hands.rest()
    assert not first.data.any()
    assert widget.session.preview.mask.any()
    on_screen = widget.viewer.screenshot(flash=False)
    first.opacity = 0
    assert np.array_equal(widget.viewer.screenshot(flash=False), on_screen)


def test_removing_the_image_closes_the_scan(hands, widget, scan):
    hands.click(34, 30)
    widget.viewer.layers.remove("ball")
    hands.rest()
    assert widget.session.scan is None
    assert PREVIEW not in widget.viewer.layers
    assert SEGMENTATION in widget.viewer.layers
    assert widget.points_layer is None


def test_a_layer_from_elsewhere_can_be_chosen(hands, widget):
    pixels = np.random.default_rng(0).random((5, 40, 50)).astype(np.float32)
    layer = widget.viewer.add_image(pixels, name="elsewhere", scale=(2, 1, 1))
    assert widget.session.scan is None
    widget.choose_layer(layer)
    hands.rest()
    hands.press("G")
    hands.drag((10, 10), (30, 30))
    hands.press("K")
    assert len(widget.store.records()) == 1
    assert widget.segmentation_layer.data.shape == pixels.shape


def test_a_layer_that_cannot_be_annotated_is_told(hands, widget, told):
    layer = widget.viewer.add_image(np.zeros((2, 3, 4, 5)), name="movie")
    widget.choose_layer(layer)
    assert "'movie' is not a plain 2-D or 3-D image" in told[0]


def test_the_mask_is_saved_with_the_scans_geometry(hands, widget, scan, tmp_path):
    hands.click(34, 30)
    hands.press("K")
    path = tmp_path / "mask.nii.gz"
    widget.save_mask(path)
    hands.rest()
    saved = read_mask(path, scan)
    shown = scan.orientation.to_display(saved)
    assert np.array_equal(shown, widget.segmentation_layer.data)
    assert read_scan(path).geometry.matches(scan.geometry)


def test_napari_saves_the_segmentation_with_the_geometry(hands, widget, scan, tmp_path):
    hands.click(34, 30)
    hands.press("K")
    path = tmp_path / "napari.nrrd"
    assert widget.segmentation_layer.save(path, plugin="napari-fedsam") == [str(path)]
    assert read_mask(path, scan).any()


@pytest.mark.parametrize("by_napari", [False, True])
def test_names_and_colours_are_saved_and_open_again_on_the_scan(
    hands, widget, viewer, scan, tmp_path, by_napari
):
    widget.session.view.add_structure("spleen", "#123456")
    hands.click(34, 30)
    hands.press("K")
    path = tmp_path / "organs.seg.nrrd"
    if by_napari:
        assert widget.segmentation_layer.save(path, plugin="napari-fedsam") == [str(path)]
    else:
        widget.save_mask(path)
        hands.rest()
    saved = read_segmentation(path, scan)
    assert [(each.value, each.name, each.color) for each in saved.structures] == [
        (1, "structure 1", "#56b4e9"),
        (2, "spleen", "#123456"),
    ]
    assert set(np.unique(saved.labels)) == {0, 2}
    assert viewer.open(path, plugin="napari-fedsam") == []
    hands.qtbot.waitUntil(lambda: "organs.seg" in viewer.layers, timeout=30_000)
    opened = viewer.layers["organs.seg"]
    assert scan_of(opened) is scan
    assert np.array_equal(opened.data, widget.segmentation_layer.data)
    np.testing.assert_allclose(opened.colormap.map(2), [0x12 / 255, 0x34 / 255, 0x56 / 255, 1])


def test_a_segmentation_needs_its_scan(hands, viewer, widget, told, scan, tmp_path):
    write_mask((scan.pixels > 250), scan, tmp_path / "m.seg.nrrd")
    viewer.layers.clear()
    hands.rest()
    viewer.open(tmp_path / "m.seg.nrrd", plugin="napari-fedsam")
    hands.qtbot.waitUntil(lambda: bool(told), timeout=30_000)
    assert told == [
        "m.seg.nrrd is a segmentation, not a scan: open the scan that it belongs to first."
    ]


def test_saving_without_a_scan_is_told(hands, widget, told, tmp_path):
    widget.save_mask(tmp_path / "mask.nii.gz")
    assert "open a scan first" in told[0]


def test_a_ct_has_presets(hands, widget, scan, tmp_path):
    pixels = (scan.pixels.astype(np.int16) * 3) - 500
    ct = Scan(pixels, scan.geometry, "ct", Path("ct.nii"), modality="CT")
    data, options, _ = image_layer_data(ct)
    layer = widget.viewer.add_image(data, **options)
    hands.rest()
    presets = widget.scan_section.presets
    assert [presets.itemText(index) for index in range(presets.count())] == [
        "soft tissue",
        "lung",
        "bone",
        "brain",
    ]
    presets.setCurrentText("lung")
    presets.activated.emit(1)
    hands.rest()
    assert tuple(layer.contrast_limits) == (-1350, 150)
    assert widget.scan_section.level_and_width.text() == "-600 / 1500"


def test_masks_written_by_hand_are_read_back(scan, tmp_path):
    mask = (scan.pixels > 250).astype(np.uint8)
    write_mask(mask, scan, tmp_path / "m.mha")
    assert np.array_equal(read_mask(tmp_path / "m.mha", scan), mask)


def arriving_layers(viewer):
    return [layer for layer in viewer.layers if layer.metadata.get(ROLE_KEY) == "arriving"]


def test_what_has_arrived_of_a_scan_is_looked_at_meanwhile(
    hands, viewer, widget, tmp_path, new_ball, held
):
    scan = new_ball()
    opening = widget.open_scan(written(scan, tmp_path / "chest.nii.gz"))
    hands.qtbot.waitUntil(lambda: bool(arriving_layers(viewer)), timeout=30_000)
    (layer,) = arriving_layers(viewer)
    hands.qtbot.waitUntil(lambda: layer.name == "chest: 100% read", timeout=30_000)
    assert widget.session.scan is None
    assert widget.scan_section.layers.placeholderText() == "still being read"
    assert np.array_equal(layer.data, scan.orientation.to_display(scan.pixels))
    assert viewer.dims.current_step[0] == len(layer.data) // 2
    viewer.dims.set_current_step(0, 3)
    viewer.scene.camera.zoom *= 2
    zoom = viewer.scene.camera.zoom
    held.set()
    hands.rest()
    assert arriving_layers(viewer) == []
    assert scan_of(opening.layer) is widget.session.scan
    # From one slice, and from all.
    assert layer.contrast_limits == pytest.approx(opening.layer.contrast_limits, rel=0.05)
    # One goes on looking where one looked.
    assert widget.session.view.slice.index == 3
    assert viewer.scene.camera.zoom == pytest.approx(zoom)


def test_a_scan_that_is_looked_at_stays_until_the_next_has_been_read(
    hands, viewer, widget, tmp_path, scan, held
):
    held.set()
    first = widget.open_scan(written(scan, tmp_path / "first.nii.gz"))
    hands.rest()
    held.clear()
    second = widget.open_scan(written(scan, tmp_path / "second.nii.gz"))
    hands.qtbot.waitUntil(lambda: second._arriving._arriving is not None, timeout=30_000)
    second._arriving._look()
    assert arriving_layers(viewer) == []
    assert first.layer.visible
    held.set()
    hands.rest()
    assert widget.session.scan is scan_of(second.layer)


def test_what_arrived_of_a_damaged_scan_goes(
    hands, viewer, widget, tmp_path, new_ball, told, monkeypatch
):
    gate = threading.Event()
    read = scan_opening.read_scan

    def read_and_fail(path, **options):
        read(path, **options)
        gate.wait(60)
        raise ImagingError("It is damaged.")

    monkeypatch.setattr(scan_opening, "read_scan", read_and_fail)
    widget.open_scan(written(new_ball(), tmp_path / "chest.nii.gz"))
    hands.qtbot.waitUntil(lambda: bool(arriving_layers(viewer)), timeout=30_000)
    gate.set()
    hands.rest()
    assert arriving_layers(viewer) == []
    assert told == ["It is damaged."]
