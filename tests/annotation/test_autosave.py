"""Sessions on disk: written while working, whole after any interruption, brought back exactly."""

import dataclasses
import threading

import numpy as np
import pytest
import SimpleITK as sitk

from napari_fedsam.annotation.autosave import Autosave, newest_left_behind, save_session
from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.session_file import SessionLog, read_session
from napari_fedsam.annotation.session_state import acceptances_of, restore, state_of


@pytest.fixture
def scan(scan, tmp_path):
    """The small scan, with a file that it came from."""
    source = tmp_path / "small.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(scan.pixels), str(source))
    return dataclasses.replace(scan, source=source)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "sessions"


def work(session):
    session.add_click(10, 8)
    session.answering.run_pending()
    session.accept()
    session.view.next_slice()
    session.view.add_structure("liver", "#123456")
    session.add_scribble(((3, 3), (9, 9)))
    added = np.zeros((20, 30), np.bool_)
    added[2:5, 2:5] = True
    session.paint_answer(added, added & False)
    session.set_preserve_others(True)


def everything(session):
    view = session.view
    return (
        session.segmentation.tobytes(),
        dict(session.asks),
        {place: each.record.id for place, each in session.acceptances.items()},
        (view.slice, view.structure, view.structures, view.window, session.preserve_others),
    )


def resumed(saved, scan, model, store):
    session = AnnotationSession(store)
    session.use_model(model)
    session.open_scan(scan)
    restore(session, saved, acceptances_of(saved, scan, store))
    return session


def refused(*_):
    raise AnnotationError("The disk is full.")


def test_what_was_autosaved_comes_back_exactly(session, folder, scan, model, store):
    autosave = Autosave(session, folder)
    session.add_click(4, 4)
    autosave.job()()
    session.clear()
    work(session)
    autosave.job()()
    assert autosave.job() is None
    expected = everything(session)
    autosave.close()
    left = newest_left_behind(folder)
    again = resumed(left.saved, scan, model, store)
    assert everything(again) == expected


def test_accepting_again_after_a_restore_replaces_the_case(session, folder, scan, model, store):
    autosave = Autosave(session, folder)
    work(session)
    autosave.job()()
    autosave.close()
    again = resumed(newest_left_behind(folder).saved, scan, model, store)
    again.view.choose_structure(1)
    again.view.next_slice(-1)
    again.add_click(10, 9)
    again.answering.run_pending()
    again.accept()
    assert len(store.records()) == 1
    again.undo()
    (record,) = store.records()
    assert store.load(record.id).mask.sum() == session.segmentation.astype(bool).sum()


def test_what_a_full_disk_refused_is_written_with_the_next(
    session, folder, scan, model, store, monkeypatch
):
    autosave = Autosave(session, folder)
    work(session)
    with monkeypatch.context() as full:
        full.setattr(SessionLog, "append", refused)
        with pytest.raises(AnnotationError):
            autosave.job()()
    job = autosave.job()
    assert job is not None
    job()
    autosave.close()
    found = newest_left_behind(folder)
    assert everything(resumed(found.saved, scan, model, store)) == everything(session)


def test_what_was_done_before_the_file_could_be_made_is_in_the_next(
    session, folder, scan, model, store
):
    autosave = Autosave(session, folder)
    work(session)
    folder.write_text("No folder can be made here.")
    with pytest.raises(AnnotationError, match="could not be saved in sessions"):
        autosave.job()()
    folder.unlink()
    session.add_click(20, 12)
    session.answering.run_pending()
    session.accept()
    autosave.job()()
    autosave.close()
    found = newest_left_behind(folder)
    assert everything(resumed(found.saved, scan, model, store)) == everything(session)


def test_a_part_that_waits_while_the_first_fails_is_in_the_next(
    session, folder, scan, model, store
):
    autosave = Autosave(session, folder)
    session.add_click(4, 4)
    first = autosave.job()
    work(session)
    second = autosave.job()
    folder.write_text("No folder can be made here.")
    with pytest.raises(AnnotationError):
        first()
    folder.unlink()
    second()
    autosave.job()()
    autosave.close()
    (path,) = folder.glob("*.fedsam")
    assert everything(resumed(read_session(path), scan, model, store)) == everything(session)


def test_files_that_could_not_be_written_push_no_earlier_session_out(session, folder, monkeypatch):
    for _ in range(3):
        autosave = Autosave(session, folder)
        session.add_click(4, 4)
        autosave.job()()
        autosave.close()
    earlier = set(folder.iterdir())
    autosave = Autosave(session, folder)
    session.add_click(5, 5)
    monkeypatch.setattr(SessionLog, "append", refused)
    for _ in range(6):
        with pytest.raises(AnnotationError):
            autosave.job()()
    assert set(folder.iterdir()) == earlier


def test_what_another_thread_wrote_is_offered_after_closing(session, folder):
    autosave = Autosave(session, folder)
    work(session)
    worker = threading.Thread(target=autosave.job())
    worker.start()
    worker.join()
    assert newest_left_behind(folder) is None
    autosave.close()
    assert newest_left_behind(folder) is not None


def test_a_write_that_ends_after_closing_is_offered(session, folder):
    autosave = Autosave(session, folder)
    work(session)
    job = autosave.job()
    autosave.close()
    job()
    assert newest_left_behind(folder) is not None


def test_a_session_that_someone_removed_is_written_whole_once_something_is_done(
    session, folder, scan, model, store
):
    autosave = Autosave(session, folder)
    work(session)
    autosave.job()()
    (path,) = folder.glob("*.fedsam")
    path.unlink()
    assert autosave.job() is None
    session.view.next_slice()
    autosave.job()()
    autosave.close()
    assert not path.exists()
    found = newest_left_behind(folder)
    assert everything(resumed(found.saved, scan, model, store)) == everything(session)


def test_a_file_that_is_gone_does_not_come_back_with_a_part(session, tmp_path):
    path = tmp_path / "mine.fedsam"
    log = SessionLog(path)
    path.unlink()
    with pytest.raises(AnnotationError, match="could not be saved"):
        log.append([], state_of(session))
    assert not path.exists()


def test_a_session_that_is_open_is_not_offered(session, folder):
    autosave = Autosave(session, folder)
    work(session)
    autosave.job()()
    assert newest_left_behind(folder) is None
    autosave.close()
    left = newest_left_behind(folder)
    assert left.saved.state.scan == "small"
    left.discard()
    assert newest_left_behind(folder) is None
    assert list(folder.iterdir()) == []


def test_nothing_is_written_before_anything_is_done(session, folder):
    autosave = Autosave(session, folder)
    assert autosave.job() is None
    session.view.next_slice()
    assert autosave.job() is None
    assert not folder.exists()


def test_undo_is_saved_too(session, folder, scan, model, store):
    autosave = Autosave(session, folder)
    work(session)
    autosave.job()()
    while session.undo():
        pass
    autosave.job()()
    expected = everything(session)
    autosave.close()
    assert everything(resumed(newest_left_behind(folder).saved, scan, model, store)) == expected


def test_masks_that_were_there_before_are_saved(store, scan, model, folder):
    session = AnnotationSession(store)
    present = np.zeros((6, 20, 30), np.uint8)
    present[1, 2:4, 2:4] = 3
    session.open_scan(scan, present)
    autosave = Autosave(session, folder)
    autosave.job()()
    autosave.close()
    again = resumed(newest_left_behind(folder).saved, scan, model, store)
    assert np.array_equal(again.segmentation, present)


def test_cut_off_anywhere_it_holds_the_last_complete_state(session, folder, tmp_path):
    autosave = Autosave(session, folder)
    session.add_click(4, 4)
    autosave.job()()
    first = next(folder.glob("*.fedsam")).read_bytes()
    work(session)
    autosave.job()()
    content = next(folder.glob("*.fedsam")).read_bytes()
    cut = tmp_path / "cut.fedsam"
    for length in range(len(first), len(content), max(1, len(content) // 97)):
        cut.write_bytes(content[:length])
        saved = read_session(cut)
        assert len(saved.state.places) == 1
        assert saved.edits[1:] == ()
    cut.write_bytes(content)
    assert len(read_session(cut).state.places) == 2


@pytest.mark.parametrize("content", [b"", b"something", b"napari-fedsam session 1\n"])
def test_what_is_no_session_is_refused(tmp_path, content):
    path = tmp_path / "x.fedsam"
    path.write_bytes(content)
    with pytest.raises(AnnotationError, match="session"):
        read_session(path)
    with pytest.raises(AnnotationError, match="could not be read"):
        read_session(tmp_path / "missing.fedsam")


def test_a_scan_that_has_changed_is_refused(session, folder, scan, store):
    autosave = Autosave(session, folder)
    work(session)
    autosave.job()()
    autosave.close()
    other = dataclasses.replace(scan, pixels=scan.pixels + 1)
    with pytest.raises(AnnotationError, match="has changed"):
        acceptances_of(newest_left_behind(folder).saved, other, store)


def test_a_saved_session_is_one_file(session, tmp_path, scan, model, store):
    work(session)
    save_session(session, tmp_path / "mine.fedsam")()
    again = resumed(read_session(tmp_path / "mine.fedsam"), scan, model, store)
    assert everything(again) == everything(session)
