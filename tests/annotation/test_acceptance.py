"""Cases that are kept, replaced and withdrawn while others delete them, or the disk refuses."""

import contextlib

import numpy as np
import pytest

from napari_fedsam.cases.locking import FolderLock
from napari_fedsam.cases.store import CaseStore


def accept(session, x, y):
    session.add_click(x, y)
    session.answering.run_pending()
    return session.accept()


def kept(store):
    """The mask of the only case."""
    (record,) = store.records()
    return store.load(record.id).mask


@pytest.fixture
def busy(store, monkeypatch):
    """Another program that has the store busy after one change, until so many changes failed."""
    monkeypatch.setattr(store, "_lock", FolderLock(store.folder, 0.0))
    stack = contextlib.ExitStack()

    def after_one_change(*, failures):
        changes = []

        def changed():
            changes.append(1)
            if len(changes) == 1:
                stack.enter_context(FolderLock(store.folder).held())
            elif len(changes) == 1 + failures:
                stack.close()

        store.changed.connect(changed)

    with stack:
        yield after_one_change


def test_undo_brings_no_case_of_a_deleted_patient_back(session, store):
    for x in (8, 12, 16):
        accept(session, x, 8)
    store.delete_patient(store.pseudonym("P1"))
    while session.undo():
        assert store.records() == []


def test_undo_brings_no_case_back_in_place_of_a_deleted_one(session, store):
    accept(session, 8, 8)
    second = accept(session, 16, 8)
    store.delete(second.record.id)
    session.undo()
    assert store.records() == []


def test_when_the_earlier_case_cannot_be_removed_the_new_one_is_not_kept(
    session, shown, store, busy
):
    first = accept(session, 8, 8)
    before = shown(session).copy()
    errors = []
    session.failed.connect(errors.append)
    busy(failures=1)
    accept(session, 16, 8)
    assert "busy" in str(errors[0])
    assert store.records() == [first.record]
    assert np.array_equal(shown(session), before)
    session.answering.run_pending()
    session.accept()
    assert np.array_equal(kept(store), shown(session) == 1)
    session.undo()
    assert np.array_equal(kept(store), first.new.mask)


def test_a_new_case_that_cannot_be_removed_either_is_replaced_by_the_next(
    session, shown, store, busy
):
    accept(session, 8, 8)
    errors = []
    session.failed.connect(errors.append)
    busy(failures=2)
    second = accept(session, 16, 8)
    assert len(errors) == 1
    assert len(store.records()) == 2
    assert np.array_equal(shown(session) == 1, second.new.mask)
    accept(session, 20, 12)
    assert np.array_equal(kept(store), shown(session) == 1)


def test_undoing_what_could_not_be_replaced_leaves_the_earlier_case(session, store, busy):
    first = accept(session, 8, 8)
    busy(failures=2)
    accept(session, 16, 8)
    session.undo()
    assert store.records() == [first.record]


def test_a_case_that_is_half_removed_is_replaced(session, shown, store):
    accept(session, 8, 8)
    # Nothing can be logged there, once the case is hidden already.
    log = store.folder / "deletions.jsonl"
    log.mkdir()
    errors = []
    session.failed.connect(errors.append)
    accept(session, 16, 8)
    assert not errors
    assert np.array_equal(kept(store), shown(session) == 1)
    log.rmdir()
    assert np.array_equal(kept(CaseStore(store.folder)), shown(session) == 1)
    assert not list(store.folder.glob(".deleted-*"))


def test_an_undo_that_the_disk_refused_leaves_one_case(session, store, busy):
    first, second = accept(session, 8, 8), accept(session, 16, 8)
    errors = []
    session.failed.connect(errors.append)
    busy(failures=1)
    session.undo()
    assert "busy" in str(errors[0])
    assert store.records() == [second.record]
    session.redo()
    assert store.records() == [second.record]
    session.undo()
    assert np.array_equal(kept(store), first.new.mask)
