"""Which scans a folder or a list names, and what of a worklist is kept on disk."""

import sys

import pytest

from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.worklist import Flag
from napari_fedsam.annotation.worklist_file import WorklistFolder
from napari_fedsam.annotation.worklist_source import scans_of
from napari_fedsam.training.errors import ManifestError

DICOM = b"\0" * 128 + b"DICM"


def put(folder, *names, content=b""):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def names(folder, found):
    return [path.relative_to(folder.resolve()).as_posix() for path in found]


def test_a_folder_lists_its_scans_by_number_with_sub_folders(tmp_path):
    put(tmp_path, "scan10.nii.gz", "scan9.nii.gz", "b/x.PNG", "notes.txt", ".hidden.nii")
    put(tmp_path, "scan9.seg.nrrd", "c.raw")
    assert names(tmp_path, scans_of(tmp_path)) == ["b/x.PNG", "scan9.nii.gz", "scan10.nii.gz"]


def test_a_folder_with_dicom_files_is_one_scan(tmp_path):
    put(tmp_path, "p1/IM1", "p1/IM2", "p2/1.dcm", content=DICOM)
    put(tmp_path, "p2/report.txt")
    assert names(tmp_path, scans_of(tmp_path)) == ["p1", "p2"]


def test_a_manifest_lists_each_image_once(tmp_path):
    (tmp_path / "manifest.csv").write_text(
        "task,site,split,image,mask\n"
        "a,s,train,images/2.png,m/2.png\n"
        "a,s,train,images/1.png,m/1.png\n"
        "b,s,test,images/2.png,m/2b.png\n"
    )
    found = scans_of(tmp_path / "manifest.csv")
    assert names(tmp_path, found) == ["images/2.png", "images/1.png"]


def test_a_plain_list_is_read_line_by_line(tmp_path):
    other = tmp_path / "else" / "b.nrrd"
    (tmp_path / "list.txt").write_text(f"# first\n\nsub/a.nii\n{other}\nsub/a.nii\n")
    assert names(tmp_path, scans_of(tmp_path / "list.txt")) == ["sub/a.nii", "else/b.nrrd"]


@pytest.mark.parametrize(
    ("name", "content", "error", "words"),
    [
        ("x.csv", b"name\nfoo\n", ManifestError, "lacks rows or the columns task"),
        ("x.txt", b"\xff\xfe\x00\x81", AnnotationError, "cannot be read: choose a folder"),
        ("x.txt", b"# nothing\n", AnnotationError, "x.txt names no scan"),
        ("gone.txt", None, AnnotationError, "cannot be read: choose a folder"),
    ],
)
def test_what_is_no_list_is_told_in_a_sentence(tmp_path, name, content, error, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=words):
        scans_of(tmp_path / name)


def test_a_folder_without_scans_is_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnnotationError, match="empty names no scan"):
        scans_of(tmp_path / "empty")


@pytest.fixture
def scans(tmp_path):
    put(tmp_path / "scans", "Jane_Doe_1.nii", "Jane_Doe_2.nii")
    return tmp_path / "scans"


@pytest.fixture
def folder(tmp_path):
    return WorklistFolder(tmp_path / "site" / "worklists")


def test_a_worklist_is_kept_and_opened_where_it_stopped(folder, scans):
    worklist, problem = folder.open(scans)
    assert problem is None
    worklist.flag(0, Flag.SKIPPED)
    worklist.go_to(1)
    folder.save(worklist.state)
    again, problem = folder.open(scans)
    assert problem is None
    assert again.state == worklist.state
    assert folder.newest() == scans.resolve()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_what_is_kept_is_the_owners_alone_and_its_names_tell_no_patient(folder, scans, tmp_path):
    worklist, _ = folder.open(scans)
    folder.save(worklist.state)
    (home,) = (tmp_path / "site" / "worklists").iterdir()
    assert home.stat().st_mode & 0o077 == 0
    session = folder.session_path(worklist.origin, worklist.entries[0].path)
    assert session.parent == home
    assert "Jane" not in str(session)


def test_a_damaged_state_is_told_and_set_aside(folder, scans, tmp_path):
    worklist, _ = folder.open(scans)
    folder.save(worklist.state)
    (file,) = (tmp_path / "site").rglob("worklist.json")
    file.write_text(file.read_text()[:-40])
    assert folder.newest() is None
    again, problem = folder.open(scans)
    assert "is damaged: it begins anew" in str(problem)
    assert [entry.flag for entry in again.entries] == [Flag.TO_DO] * 2
    assert file.with_name("worklist.json.damaged").exists()
    folder.save(again.state)
    assert folder.open(scans)[1] is None


def test_no_earlier_worklist_is_offered_when_its_folder_is_gone(folder, scans):
    assert folder.newest() is None
    folder.save(folder.open(scans)[0].state)
    scans.rename(scans.with_name("moved"))
    assert folder.newest() is None


def test_a_disk_that_refuses_is_told(folder, scans, monkeypatch):
    worklist, _ = folder.open(scans)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_fedsam.annotation.worklist_file.write_text_atomically", refuse)
    with pytest.raises(AnnotationError, match="could not be saved .No space left"):
        folder.save(worklist.state)
