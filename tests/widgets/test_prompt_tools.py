"""Scribbles, lassos, masks as prompts and touching up, by mouse and keys in a real window."""

import numpy as np
import pytest
import SimpleITK as sitk
from qtpy.QtTest import QTest

from napari_fedsam.annotation.ask import Ask, Painting
from napari_fedsam.imaging.segmentation import MaskStructure
from napari_fedsam.imaging.writers import write_mask
from napari_fedsam.widgets.prompt_shapes import ShapePrompts

pytestmark = pytest.mark.window

CENTRE = (34, 30)


def dice(mask, truth) -> float:
    return 2 * np.sum(mask & truth) / (mask.sum() + truth.sum())


def truth_of(scan, key):
    return key.pixels(scan.orientation.to_display(scan.pixels)) >= 250


def shown(widget):
    return widget.session.view.slice.pixels(widget.segmentation_layer.data)


def told_errors(monkeypatch):
    told = []
    monkeypatch.setattr("napari_fedsam.widgets.dock.show_error", told.append)
    return told


def test_shapes_that_have_not_changed_leave_a_proposal_untouched():
    proposal = Ask(proposal=True, automatic=True)
    assert ShapePrompts.of(proposal).put_into(proposal).automatic


def test_a_positive_scribble_is_drawn_answered_moved_and_deleted(ball, hands, widget):
    hands.press("Shift+W")
    assert widget.prompt_section.buttons["use_positive_scribble"].isChecked()
    hands.draw((26, 28), (34, 32), (42, 28))
    (scribble,) = widget.session.ask.scribbles
    assert scribble.positive
    assert scribble.path[0] == pytest.approx((26, 28), abs=0.7)
    key = widget.session.view.slice
    assert dice(widget.session.preview.mask, truth_of(ball, key)) > 0.85
    layer = widget.shapes_layer
    layer.mode = "select"
    # Where the pen's path really is: its points depend on where the mouse was sampled.
    _, y, x = layer.data[0][1]
    hands.drag((x, y), (x, y + 6))
    (moved,) = widget.session.ask.scribbles
    shift = np.mean(moved.path, axis=0) - np.mean(scribble.path, axis=0)
    assert shift == pytest.approx((0, 6), abs=1.5)
    layer.selected_data = {0}
    layer.remove_selected()
    hands.rest()
    assert widget.session.ask.is_empty
    hands.press("U")
    assert widget.session.ask.scribbles == (moved,)
    assert layer.nshapes == 1


def test_the_shapes_are_shown_while_there_are_some_or_may_be(ball, hands, widget):
    layer = widget.shapes_layer
    assert not layer.visible
    widget.viewer.layers.selection.active = layer
    assert layer.visible
    hands.press("W")
    assert not layer.visible
    hands.press("G")
    assert layer.visible
    widget.viewer.layers.selection.active = widget.segmentation_layer
    assert not layer.visible
    hands.press("G")
    hands.drag((18, 14), (50, 46))
    hands.press("W")
    assert layer.visible
    widget.do("undo")
    hands.rest()
    assert not layer.visible
    widget.do("redo")
    hands.rest()
    assert layer.visible


def test_a_negative_scribble_takes_away_what_it_crosses(ball, hands, widget):
    hands.press("G")
    hands.drag((18, 14), (50, 46))
    hands.press("Shift+Q")
    hands.draw((24, 22), (34, 20), (44, 22))
    assert [each.positive for each in widget.session.ask.scribbles] == [False]
    assert not widget.session.preview.mask[20, 34]
    assert widget.shapes_layer.edge_color[-1][0] > 0.9
    assert widget.shapes_layer.nshapes == 2


def test_a_lasso_holds_its_object_and_nothing_outside(ball, hands, widget):
    hands.press("Shift+G")
    hands.draw((18, 14), (50, 14), (50, 30), (40, 46), (18, 46), (18, 15))
    (outline,) = widget.session.ask.lassos
    assert len(outline) >= 5
    mask, truth = widget.session.preview.mask, truth_of(ball, widget.session.view.slice)
    assert dice(mask, truth) > 0.85
    cut_off = (slice(39, 45), slice(46, 50))
    assert truth[36:40, 44:48].any()
    assert not mask[cut_off].any()
    assert widget.shapes_layer.shape_type == ["polygon"]


def test_the_neighbouring_slices_mask_is_a_prompt(ball, hands, widget):
    hands.click(*CENTRE)
    hands.press("K")
    hands.press("N")
    hands.press("Shift+H")
    assert widget.session.ask.mask is not None
    key = widget.session.view.slice
    assert dice(widget.session.preview.mask, truth_of(ball, key)) > 0.9


def test_without_a_neighbour_that_is_said(ball, hands, widget, monkeypatch):
    told = told_errors(monkeypatch)
    hands.press("Shift+H")
    assert "Neither neighbouring slice" in told[0]


def test_another_labels_layer_is_a_prompt(ball, hands, widget):
    rough = np.zeros(widget.session.view.shape, np.uint8)
    rough[:, 18:42, 22:46] = 5
    widget.viewer.add_labels(rough, name="rough", scale=(3, 1, 1))
    hands.rest()
    hands.press("Shift+Y")
    assert widget.session.ask.mask.unpacked()[25, 30]
    assert dice(widget.session.preview.mask, truth_of(ball, widget.session.view.slice)) > 0.85


def test_a_layer_of_another_size_is_explained(ball, hands, widget, monkeypatch):
    told = told_errors(monkeypatch)
    widget.viewer.add_labels(np.ones((5, 5, 5), np.uint8), name="other")
    hands.press("Shift+Y")
    assert "'other' has (5, 5, 5) voxels" in told[0]


def test_a_file_that_names_structures_is_a_prompt_by_name(
    ball, hands, widget, tmp_path, monkeypatch
):
    told = told_errors(monkeypatch)
    labels = np.zeros(ball.shape, np.uint8)
    labels[:, 2:9, 2:9] = 1
    labels[:, 18:42, 22:46] = 5
    named = [MaskStructure(1, "liver", "#ff0000"), MaskStructure(5, "Spleen", "#00ff00")]
    write_mask(labels, ball, tmp_path / "organs.seg.nrrd", named)
    widget.use_file_mask(tmp_path / "organs.seg.nrrd")
    hands.rest()
    assert "holds 'liver', 'Spleen', but no 'structure 1'" in told[0]
    widget.session.view.add_structure("spleen")
    widget.use_file_mask(tmp_path / "organs.seg.nrrd")
    hands.rest()
    assert widget.session.ask.mask.unpacked()[20:40, 24:44].all()
    assert not widget.session.ask.mask.unpacked()[2:9, 2:9].any()


def test_a_file_is_a_prompt(ball, hands, widget, tmp_path):
    mask = np.zeros(ball.shape, np.uint8)
    mask[:, 18:42, 22:46] = 1
    image = sitk.GetImageFromArray(mask)
    image.SetSpacing(ball.geometry.spacing)
    image.SetOrigin(ball.geometry.origin)
    image.SetDirection(ball.geometry.direction)
    sitk.WriteImage(image, str(tmp_path / "rough.nrrd"))
    widget.use_file_mask(tmp_path / "rough.nrrd")
    hands.rest()
    assert dice(widget.session.preview.mask, truth_of(ball, widget.session.view.slice)) > 0.85


def test_painting_on_the_answer_corrects_it_and_the_next_prompt_keeps_it(ball, hands, widget):
    hands.click(*CENTRE)
    before = widget.session.preview.mask
    hands.press("J")
    layer = widget.preview_layer
    assert widget.viewer.layers.selection.active is layer
    assert layer.mode == "paint"
    layer.brush_size = 5
    hands.draw((54, 30), (58, 30))
    assert isinstance(widget.session.ask.corrections[-1], Painting)
    assert widget.session.preview.mask[30, 56]
    QTest.keyClick(hands.canvas, "e")
    hands.draw((34, 28), (34, 32))
    assert not widget.session.preview.mask[30, 34]
    hands.press("W")
    hands.click(28, 28)
    mask = widget.session.preview.mask
    assert mask[30, 56]
    assert not mask[30, 34]
    assert before[30, 34]
    # Outlined again, and nothing is left filled.
    assert not np.squeeze(layer.data)[26, 30]
    hands.press("K")
    assert shown(widget)[30, 56] == 1


def test_an_empty_slice_can_be_touched_up(ball, hands, widget):
    hands.press("J")
    widget.preview_layer.brush_size = 6
    hands.draw((30, 30), (36, 30))
    assert widget.session.preview.mask[30, 33]


def test_painting_in_the_segmentation_while_prompted_becomes_a_prompt(ball, hands, widget):
    hands.click(*CENTRE)
    widget.viewer.layers.selection.active = widget.segmentation_layer
    QTest.keyClick(hands.canvas, "p")
    widget.segmentation_layer.brush_size = 4
    hands.draw((6, 6), (10, 6))
    assert not widget.segmentation_layer.data.any()
    assert isinstance(widget.session.ask.corrections[-1], Painting)
    assert widget.session.preview.mask[6, 8]


def test_what_was_painted_first_is_a_prompt_of_the_first_click(ball, hands, widget):
    widget.viewer.layers.selection.active = widget.segmentation_layer
    QTest.keyClick(hands.canvas, "p")
    widget.segmentation_layer.brush_size = 4
    hands.draw((6, 6), (10, 6))
    hands.press("W")
    hands.click(*CENTRE)
    assert isinstance(widget.session.ask.corrections[0], Painting)
    assert widget.session.preview.mask[6, 8]
    assert widget.session.preview.mask[30, 34]
