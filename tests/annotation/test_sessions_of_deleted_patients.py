"""Sessions hold masks and where a scan's file is: they go when its patient is deleted."""

import dataclasses

import pytest

from napari_fedsam.annotation.autosave import Autosave, save_session
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.session_file import read_session
from napari_fedsam.cases.store import CaseStore


@pytest.fixture
def scan(scan, tmp_path):
    """The small scan of the patient P1, with a file that it came from."""
    source = tmp_path / "DOE_JANE.nrrd"
    source.touch()
    return dataclasses.replace(scan, source=source)


@pytest.fixture
def other(store, scan, model):
    """A session on another patient's scan."""
    other = AnnotationSession(store)
    other.use_model(model)
    other.open_scan(dataclasses.replace(scan, pixels=scan.pixels + 1, patient_key="P2"))
    return other


def accept(session):
    session.add_click(10, 8)
    session.answering.run_pending()
    return session.accept().record


SESSION, OF_WORKLIST = "sessions/1.fedsam", "worklists/a/1.fedsam"


@pytest.mark.parametrize("profile", ["", "profiles/liver-12345678"])
@pytest.mark.parametrize("name", [SESSION, OF_WORKLIST])
def test_sessions_of_a_deleted_patient_go_and_others_stay(
    session, other, store, tmp_path, profile, name
):
    accept(session)
    accept(other)
    mine = tmp_path / profile / name
    theirs = mine.with_name("2.fedsam")
    save_session(session, mine)()
    save_session(other, theirs)()
    report = store.delete_patient(store.pseudonym("P1"))
    assert "Sessions" in report.remains
    assert not mine.exists()
    assert theirs.exists()


def test_a_session_in_which_nothing_was_accepted_goes_too(session, store, tmp_path):
    session.add_click(4, 4)
    save_session(session, tmp_path / OF_WORKLIST)()
    accept(session)
    store.delete_patient(store.pseudonym("P1"))
    assert not (tmp_path / OF_WORKLIST).exists()


def test_without_the_key_of_the_pseudonyms_sessions_are_known_by_their_cases(
    session, store, tmp_path
):
    record = accept(session)
    save_session(session, tmp_path / SESSION)()
    key = store.folder / "secret.key"
    key.unlink()
    CaseStore(store.folder).delete_patient(record.patient)
    assert not (tmp_path / SESSION).exists()
    assert not key.exists()


def test_deleting_one_case_leaves_the_session_of_its_scan(session, store, tmp_path):
    record = accept(session)
    save_session(session, tmp_path / SESSION)()
    assert "not with a single case" in store.delete(record.id).remains
    assert (tmp_path / SESSION).exists()


def test_an_interrupted_deletion_takes_the_sessions_at_the_next_opening(session, store, tmp_path):
    record = accept(session)
    save_session(session, tmp_path / SESSION)()
    store.case_folder(record.id).rename(store.folder / f".forgotten-{record.id}-00000000")
    CaseStore(store.folder)
    assert not (tmp_path / SESSION).exists()


def test_an_open_session_of_a_deleted_patient_goes_until_somebody_goes_on(
    session, other, store, tmp_path
):
    folder = tmp_path / "sessions"
    mine, theirs = Autosave(session, folder), Autosave(other, folder)
    accept(session)
    accept(other)
    mine.job()()
    (gone,) = folder.glob("*.fedsam")
    theirs.job()()
    store.delete_patient(store.pseudonym("P1"))
    assert mine.job() is None
    assert not list(folder.glob(f"{gone.stem}*"))
    (left,) = folder.glob("*.fedsam")
    assert read_session(left).state.fingerprint == other.scan.fingerprint
    session.undo()
    mine.job()()
    assert len(list(folder.glob("*.fedsam"))) == 2
    assert len(store.records()) == 1
