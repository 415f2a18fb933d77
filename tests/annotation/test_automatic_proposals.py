"""What the model proposes on every slice is nobody's work until a person takes it up."""

from dataclasses import replace

import numpy as np
import pytest

from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.autosave import Autosave, newest_left_behind
from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.propagation import Limits
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.session_state import acceptances_of, restore
from napari_fedsam.annotation.volume_work import propagation_of


@pytest.fixture
def scan(scan, tmp_path):
    """The small scan, with a file that it came from: without one nothing is saved."""
    source = tmp_path / "small.nrrd"
    source.write_bytes(b"voxels")
    return replace(scan, source=source)


@pytest.fixture
def session(session, site_model):
    session.use_model(site_model)
    session.auto_propose = True
    session.answering.run_pending()
    return session


def scroll_to(session: AnnotationSession, index: int) -> None:
    session.view.show_slice(session.view.slice.axis, index)
    session.answering.run_pending()


def seeds(session: AnnotationSession) -> list[int]:
    return sorted(propagation_of(session, Limits(0, session.view.slice_count - 1)).seeds)


def proposes_itself(session: AnnotationSession) -> bool:
    return session.ask == Ask(proposal=True) and session.preview is not None


def test_slices_that_were_scrolled_past_are_no_work_and_nothing_starts_from_them(session):
    for index in range(session.view.slice_count):
        scroll_to(session, index)
        assert proposes_itself(session)
    assert not session.has_work
    assert not session.asks
    with pytest.raises(AnnotationError, match="no slice with structure 1 to start from"):
        seeds(session)
    session.add_click(20, 15)
    assert seeds(session) == [session.view.slice.index]


def test_once_the_box_is_off_nothing_is_left_on_the_slices_that_were_passed(session):
    scroll_to(session, 2)
    session.auto_propose = False
    assert proposes_itself(session)
    scroll_to(session, 1)
    scroll_to(session, 2)
    assert session.ask.is_empty
    assert session.preview is None


def test_a_slice_that_is_come_back_to_has_its_proposal_again(session):
    scroll_to(session, 1)
    shown = session.preview.mask
    scroll_to(session, 2)
    scroll_to(session, 1)
    assert proposes_itself(session)
    assert np.array_equal(session.preview.mask, shown)


def test_turned_on_the_slice_on_screen_has_a_proposal_without_an_undo_step(session, scan):
    session.auto_propose = False
    session.close_scan()
    session.auto_propose = True
    session.auto_propose = False
    session.open_scan(scan)
    assert session.ask.is_empty
    session.auto_propose = True
    session.answering.run_pending()
    assert proposes_itself(session)
    assert not session.undo()


def test_a_corrected_proposal_is_the_persons(session):
    session.add_click(20, 15)
    corrected, here = session.ask, session.view.slice.index
    assert corrected.proposal
    scroll_to(session, here + 1)
    assert seeds(session) == [here]
    scroll_to(session, here)
    assert session.ask == corrected
    session.undo()
    assert proposes_itself(session)
    assert not session.asks
    scroll_to(session, here + 1)
    session.redo()
    assert session.ask == corrected
    assert seeds(session) == [here]


def test_a_proposal_that_the_person_asks_for_is_the_persons(session):
    here, shown = session.view.slice.index, session.preview
    session.propose()
    assert session.preview is shown
    assert session.answering.is_current
    scroll_to(session, here + 1)
    assert session.has_work
    assert seeds(session) == [here]
    assert session.undo()
    assert not session.asks


def test_saying_again_what_is_drawn_touches_nothing(session):
    session.set_ask(session.ask.with_clicks(()))
    assert not session.has_work


def test_an_accepted_proposal_comes_back_with_undo_and_is_no_work_then(session, store):
    here = session.view.slice.index
    session.accept()
    (record,) = store.records()
    assert record.prompts[0]["kind"] == "none"
    assert seeds(session) == [here]
    assert session.undo()
    session.answering.run_pending()
    assert proposes_itself(session)
    assert not session.asks
    assert store.records() == []


def test_where_something_was_painted_the_proposal_begins_with_it_and_is_no_work(session):
    painted = np.zeros((20, 30), np.bool_)
    painted[12:15, 12:15] = True
    session.put_masks(session.view.slice.axis, 1, {1: painted})
    scroll_to(session, 1)
    assert session.preview.mask[painted].all()
    assert not session.asks


def test_a_saved_session_has_the_persons_prompts_alone(session, scan, store, site_model, tmp_path):
    here = session.view.slice.index
    autosave = Autosave(session, tmp_path / "sessions")
    for index in range(session.view.slice_count):
        scroll_to(session, index)
    scroll_to(session, here)
    assert autosave.job() is None
    session.add_click(20, 15)
    scroll_to(session, here + 1)
    autosave.job()()
    expected = dict(session.asks)
    autosave.close()
    saved = newest_left_behind(tmp_path / "sessions").saved

    again = AnnotationSession(store)
    again.use_model(site_model)
    again.auto_propose = True
    again.open_scan(scan)
    restore(again, saved, acceptances_of(saved, scan, store))
    again.answering.run_pending()
    assert again.asks == expected
    assert proposes_itself(again)
    assert seeds(again) == [here]


def test_restored_on_the_slice_that_is_on_screen_it_has_a_proposal(session):
    session.resume({}, [], [])
    session.answering.run_pending()
    assert proposes_itself(session)
