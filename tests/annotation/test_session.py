"""A session shows slices and answers prompts on them."""

import dataclasses

import numpy as np
import pytest

from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.slices import SliceKey
from napari_fedsam.imaging.window import Window, apply_window


def test_a_scan_opens_on_the_middle_slice_of_its_acquired_plane(session, scan):
    axis = scan.orientation.display_axis(scan.slice_axis)
    assert session.view.slice == SliceKey(axis, 3)
    assert session.view.display.shape == (6, 20, 30)
    assert session.segmentation.shape == (6, 20, 30)


def test_slices_stop_at_the_ends(session):
    session.view.show_slice(0, 99)
    assert session.view.slice.index == 5
    session.view.next_slice()
    assert session.view.slice.index == 5
    session.view.next_slice(-9)
    assert session.view.slice.index == 0


def test_the_slice_on_screen_is_encoded_ahead_and_once(session, clicked, predictor):
    assert len(predictor.encoded) == 1
    clicked(session)
    clicked(session, 12, 9)
    assert len(predictor.encoded) == 1
    session.view.next_slice()
    session.answering.run_pending()
    session.view.next_slice(-1)
    session.answering.run_pending()
    assert len(predictor.encoded) == 2


def test_the_model_sees_the_window(session, predictor):
    session.view.set_window(Window(100, 300))
    session.answering.run_pending()
    expected = apply_window(session.view.slice.pixels(session.view.display), Window(100, 300))
    assert np.array_equal(predictor.encoded[-1], expected)


def test_a_click_gives_a_preview_of_that_place(session, clicked):
    preview = clicked(session)
    assert preview.mask[8, 10]
    assert preview.place == session.view.place
    assert not session.segmentation.any()


def test_prompts_belong_to_their_slice_and_structure(session, clicked):
    clicked(session)
    session.view.next_slice()
    assert session.ask.is_empty
    assert session.preview is None
    session.view.next_slice(-1)
    assert session.ask.prompt_count == 1
    session.view.add_structure("liver")
    assert session.ask.is_empty


def test_work_for_another_place_is_dropped(session):
    session.add_click(10, 8)
    work = session.answering.pending_work()
    session.view.next_slice()
    session.answering.finish(work, work.run())
    assert session.preview is None


def test_work_of_another_model_is_dropped(session, site_model):
    session.add_click(10, 8)
    work = session.answering.pending_work()
    session.use_model(site_model)
    session.answering.finish(work, work.run())
    assert session.preview is None
    session.answering.run_pending()
    assert session.preview.model is site_model


def test_encoding_of_a_closed_scan_is_dropped(session, scan):
    session.view.next_slice()
    work = session.answering.pending_work()
    session.open_scan(dataclasses.replace(scan))
    session.view.show_slice(work.key[1].axis, work.key[1].index)
    session.answering.finish(work, work.run())
    assert not session.answering.is_encoded


def test_while_the_next_answer_is_computed_the_one_before_stays(session, clicked):
    first = clicked(session)
    session.add_click(15, 8)
    assert session.preview is first
    assert not session.answering.is_current


def test_a_refused_prompt_is_told_once_and_not_tried_again(session, clicked, heard):
    errors = heard(session.failed)
    clicked(session, positive=False)
    session.answering.run_pending()
    assert len(errors) == 1
    assert session.answering.pending_work() is None
    clicked(session, 12, 8)
    assert session.preview.mask[8, 12]


def test_prompting_needs_a_scan(store):
    with pytest.raises(AnnotationError, match="open one"):
        AnnotationSession(store).add_click(1, 1)


def test_a_base_model_proposes_nothing(session):
    with pytest.raises(AnnotationError, match="has not learned to propose"):
        session.propose()
    assert session.ask.is_empty


def test_a_personalised_model_proposes_the_structures_it_knows(session, site_model):
    session.use_model(site_model)
    session.propose()
    session.answering.run_pending()
    assert session.preview.mask[2:6, 2:6].all()
    assert site_model.predictor.asked[-1][1] == 1
    session.view.add_structure("liver")
    assert not session.can_propose


def test_clicks_correct_a_proposal(session, clicked, site_model):
    session.use_model(site_model)
    session.propose()
    session.answering.run_pending()
    clicked(session, 20, 15)
    assert session.preview.mask[3, 3]
    assert session.preview.mask[15, 20]


def test_auto_propose_asks_on_arrival_but_not_where_accepted(session, site_model):
    session.use_model(site_model)
    session.auto_propose = True
    session.view.next_slice()
    assert session.ask == Ask(proposal=True)
    session.answering.run_pending()
    session.accept()
    session.view.next_slice(-1)
    session.view.next_slice()
    assert session.ask.is_empty


def test_a_new_model_answers_the_same_prompts(session, clicked, heard, site_model):
    clicked(session)
    ask = session.ask
    changes = heard(session.model_changed)
    session.use_model(site_model)
    assert changes
    assert session.ask == ask
    session.answering.run_pending()
    assert session.preview.model is site_model
