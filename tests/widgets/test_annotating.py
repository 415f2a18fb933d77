"""A person's way through the widget, in a real window with the real model."""

import numpy as np
import pytest
from scipy import ndimage

from napari_fedsam.cases.store import CaseStore
from napari_fedsam.widgets.prompt_layers import Tool

pytestmark = pytest.mark.window

CENTRE = (34, 30)


def dice(mask, truth) -> float:
    return 2 * np.sum(mask & truth) / (mask.sum() + truth.sum())


def truth_of(scan, key):
    return key.pixels(scan.orientation.to_display(scan.pixels)) >= 250


def shown(widget):
    """The slice of the segmentation on screen."""
    return widget.session.view.slice.pixels(widget.segmentation_layer.data)


def test_a_click_on_the_sample_gives_a_preview_that_is_accepted_by_key(viewer, hands, widget):
    viewer.open_sample("napari-fedsam", "icbm152_t1")
    hands.rest()
    assert widget.session.scan.name == "ICBM 152 T1 (sample)"
    hands.click(40, 49)
    preview = widget.session.preview
    assert preview.mask.any()
    assert len(widget.points_layer.data) == 1
    outline = np.squeeze(widget.preview_layer.data) > 0
    filled = ndimage.binary_fill_holes
    assert np.array_equal(filled(outline), filled(preview.mask))
    hands.press("K")
    (record,) = widget.store.records()
    assert record.modality == "MR"
    assert np.array_equal(shown(widget) == 1, preview.mask)
    assert len(widget.points_layer.data) == 0
    assert not widget.preview_layer.data.any()


def test_click_accept_undo_with_mouse_and_keys(ball, hands, widget):
    hands.click(*CENTRE)
    key = widget.session.view.slice
    assert dice(widget.session.preview.mask, truth_of(ball, key)) > 0.9
    hands.press("K")
    assert len(widget.store.records()) == 1
    assert widget.cases_section.model.rowCount() == 1
    hands.press("U")
    assert widget.store.records() == []
    assert widget.cases_section.model.rowCount() == 0
    assert not widget.segmentation_layer.data.any()
    # The prompt is back, and its answer too.
    assert len(widget.points_layer.data) == 1
    assert widget.session.preview is not None
    hands.press("U")
    assert len(widget.points_layer.data) == 0
    assert widget.session.preview is None


def test_the_kept_case_survives_a_restart(ball, hands, widget):
    hands.click(*CENTRE)
    hands.press("K")
    store = CaseStore(widget.store.folder)
    (record,) = store.records()
    assert store.load(record.id).mask.sum() == shown(widget).astype(bool).sum()


def test_accept_can_be_undone_by_naparis_own_undo(ball, hands, widget):
    hands.click(*CENTRE)
    hands.press("K")
    assert shown(widget).any()
    widget.segmentation_layer.undo()
    assert not shown(widget).any()


def test_the_preview_lies_on_the_slice_that_was_prompted(ball, hands, widget):
    hands.click(*CENTRE)
    layer = widget.preview_layer
    index = widget.session.view.slice.index
    assert layer.data.shape == (1, 64, 64)
    assert layer.translate[0] == pytest.approx(index * 3.0)
    mask = widget.session.preview.mask
    row = int(np.flatnonzero(mask[:, CENTRE[0]])[0])
    on_the_edge, inside = (np.array([index * 3.0, y, CENTRE[0]]) for y in (row, row + 4))
    assert layer.get_value(on_the_edge, world=True) == 1
    assert layer.get_value(inside, world=True) == 0


def test_a_box_is_drawn_with_the_mouse(ball, hands, widget):
    hands.press("G")
    assert widget.prompt_section.buttons["use_box"].isChecked()
    hands.drag((18, 14), (50, 46))
    (box,) = widget.session.ask.boxes
    assert box == pytest.approx((18, 14, 50, 46), abs=0.5)
    key = widget.session.view.slice
    assert dice(widget.session.preview.mask, truth_of(ball, key)) > 0.9


def test_a_click_without_a_drag_is_no_box(ball, hands, widget):
    hands.press("G")
    hands.click(20, 20)
    assert widget.session.ask.is_empty
    assert widget.shapes_layer.nshapes == 0


def test_a_negative_point_takes_away(ball, hands, widget):
    hands.press("G")
    hands.drag((18, 14), (50, 46))
    hands.press("Q")
    hands.click(34, 20)
    assert [click.positive for click in widget.session.ask.clicks] == [False]
    assert not widget.session.preview.mask[20, 34]
    positive, negative = "#00e08a", "#ff5a36"
    assert widget.points_layer.face_color[0][0] > 0.9, (positive, negative)


def test_only_a_negative_point_is_explained(ball, hands, widget, monkeypatch):
    told = []
    monkeypatch.setattr("napari_fedsam.widgets.dock.show_error", told.append)
    hands.push("use_negative_point")
    hands.click(*CENTRE)
    assert len(told) == 1
    assert "Only negative clicks" in told[0]


def test_absent_is_kept_by_key(ball, hands, widget):
    hands.press("Shift+K")
    (record,) = widget.store.records()
    assert record.absent
    assert "1 absent" in widget.cases_section.count.text()


def test_nothing_to_accept_is_explained(ball, hands, widget, monkeypatch):
    told = []
    monkeypatch.setattr("napari_fedsam.widgets.dock.show_error", told.append)
    hands.press("K")
    assert len(told) == 1
    assert "There is no structure 1 to accept" in told[0]
    assert widget.store.records() == []


def test_a_mask_painted_in_napari_is_accepted(ball, hands, widget):
    layer = widget.segmentation_layer
    index = widget.session.view.slice.index
    layer.brush_size = 6
    layer.paint((index, 10, 10), 1)
    hands.push("accept")
    (record,) = widget.store.records()
    assert record.model == "by hand"


def test_prompts_follow_the_slice(ball, hands, widget):
    hands.click(*CENTRE)
    here = widget.session.view.slice.index
    hands.press("N")
    assert widget.session.view.slice.index == here + 1
    assert widget.viewer.dims.current_step[0] == here + 1
    assert len(widget.points_layer.data) == 0
    assert not widget.preview_layer.data.any()
    hands.press("Shift+N")
    assert len(widget.points_layer.data) == 1
    assert widget.session.preview is not None


def test_scrolling_moves_the_session(ball, hands, widget):
    widget.viewer.dims.set_current_step(0, 2)
    hands.rest()
    assert widget.session.view.slice.index == 2


def test_moving_a_point_moves_the_preview(ball, hands, widget):
    hands.click(5, 5)
    before = widget.session.preview.mask
    widget.points_layer.mode = "select"
    hands.drag((5, 5), CENTRE)
    assert widget.session.ask.prompt_count == 1
    assert not np.array_equal(widget.session.preview.mask, before)
    assert dice(widget.session.preview.mask, truth_of(ball, widget.session.view.slice)) > 0.5


def test_deleting_a_point_in_napari_takes_the_prompt_back(ball, hands, widget):
    hands.click(*CENTRE)
    widget.points_layer.selected_data = {0}
    widget.points_layer.remove_selected()
    hands.rest()
    assert widget.session.ask.is_empty
    assert widget.session.preview is None


def test_clear_by_key(ball, hands, widget):
    hands.click(*CENTRE)
    hands.click(30, 30)
    hands.press("Alt+U")
    assert widget.session.ask.is_empty
    assert len(widget.points_layer.data) == 0


def test_the_window_is_what_the_model_sees(ball, hands, widget):
    layer = widget.viewer.layers["ball"]
    layer.contrast_limits = (90, 120)
    hands.rest()
    assert (widget.session.view.window.low, widget.session.view.window.high) == (90, 120)
    assert widget.scan_section.presets.currentText() == "custom window"
    widget.scan_section.presets.setCurrentIndex(0)
    widget.scan_section.presets.activated.emit(0)
    hands.rest()
    assert tuple(layer.contrast_limits) == pytest.approx(
        (widget.session.view.window.low, widget.session.view.window.high)
    )


def test_a_second_structure_has_prompts_and_pixels_of_its_own(ball, hands, widget):
    hands.click(*CENTRE)
    hands.press("K")
    widget.set_structure("cyst")
    hands.rest()
    assert widget.segmentation_layer.selected_label == 2
    hands.press("G")
    hands.drag((2, 2), (12, 12))
    hands.press("K")
    assert set(np.unique(shown(widget))) == {0, 1, 2}
    assert {record.structure.name for record in widget.store.records()} == {"structure 1", "cyst"}


def test_the_tool_is_put_down_for_another_layer_and_taken_up_by_key(ball, hands, widget):
    assert widget.prompt_section.buttons["use_positive_point"].isChecked()
    widget.viewer.layers.selection.active = widget.segmentation_layer
    assert not widget.prompt_section.buttons["use_positive_point"].isChecked()
    hands.press("W")
    assert widget.viewer.layers.selection.active is widget.points_layer
    assert widget.points_layer.mode == "add"
    assert widget.prompt_section.buttons["use_positive_point"].isChecked()
    assert Tool.POSITIVE == "positive"


def test_a_case_is_deleted_from_the_list(ball, hands, widget):
    hands.click(*CENTRE)
    hands.press("K")
    section = widget.cases_section
    section.list.setCurrentIndex(section.model.index(0))
    section.delete_wanted.emit(section.chosen)
    hands.rest()
    assert widget.store.records() == []
    assert section.model.rowCount() == 0
