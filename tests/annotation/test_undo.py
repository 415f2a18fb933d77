"""Undo takes back prompts, accepted masks and their cases."""

import numpy as np


def test_undo_takes_prompts_back_one_by_one(session, clicked):
    clicked(session)
    clicked(session, 15, 8)
    session.undo()
    session.answering.run_pending()
    assert session.ask.prompt_count == 1
    assert not session.preview.mask[8, 15 + 2]
    session.undo()
    assert session.ask.is_empty
    assert session.preview is None
    assert not session.undo()


def test_undoing_an_accept_withdraws_mask_and_case_and_brings_the_prompts_back(
    session, clicked, heard, store
):
    clicked(session)
    ask = session.ask
    withdrawn = heard(session.withdrawn)
    session.accept()
    session.undo()
    assert not session.segmentation.any()
    assert store.records() == []
    assert session.ask == ask
    assert len(withdrawn) == 1


def test_undo_goes_back_to_where_it_was_done(session, clicked, store):
    clicked(session)
    session.accept()
    where = session.view.slice
    session.view.show_slice(2, 1)
    session.view.add_structure("liver")
    session.undo()
    assert session.view.slice == where
    assert session.view.structure.value == 1


def test_undo_spares_what_was_painted_since(session, clicked, shown):
    clicked(session)
    session.accept()
    shown(session)[8, 10] = 5
    session.undo()
    assert shown(session)[8, 10] == 5
    assert np.count_nonzero(session.segmentation) == 1


def test_undoing_a_replacement_brings_the_first_case_back(session, clicked, shown, store):
    first = clicked(session, 5, 5).mask
    session.accept()
    clicked(session, 20, 12)
    session.accept()
    session.undo()
    (record,) = store.records()
    assert np.array_equal(store.load(record.id).mask, first)
    assert np.array_equal(shown(session) == 1, first)
    session.redo()
    (record,) = store.records()
    assert np.array_equal(store.load(record.id).mask, shown(session) == 1)
    assert shown(session)[12, 20]


def test_undo_survives_that_someone_deleted_the_case(session, clicked, heard, store):
    clicked(session)
    session.accept()
    store.delete(store.records()[0].id)
    errors = heard(session.failed)
    session.undo()
    assert not errors
    assert not session.segmentation.any()


def test_clear_is_one_undo_step(session, clicked):
    clicked(session)
    clicked(session, 15, 8)
    session.clear()
    assert session.ask.is_empty
    session.undo()
    assert session.ask.prompt_count == 2
