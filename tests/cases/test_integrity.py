import hashlib
import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from napari_fedsam.cases.errors import BrokenCaseError, CaseStoreError, NewerCaseError
from napari_fedsam.cases.store import CaseStore

FILES = ["image.nrrd", "mask.nrrd", "case.json", "thumbnail.png", "record.sha256"]


def change_record(folder, **changes) -> None:
    """Change the record and its checksum, as somebody would who knows the format."""
    record = json.loads((folder / "case.json").read_text()) | changes
    content = json.dumps(record).encode()
    (folder / "case.json").write_bytes(content)
    (folder / "record.sha256").write_text(hashlib.sha256(content).hexdigest() + "  case.json\n")


def replace_file(folder, name, array, spacing=(0.8, 5.0)) -> None:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(folder / name))
    files = json.loads((folder / "case.json").read_text())["files"]
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    change_record(folder, files=files | {name: digest})


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove", "folder", "link"])
def test_any_damage_is_found_and_set_aside(store, make_case, name, damage, tmp_path) -> None:
    record, healthy = store.accept(make_case()), store.accept(make_case())
    path = store.case_folder(record.id) / name
    content = path.read_bytes()
    path.unlink()
    if damage == "flip":
        # The checksum file's own newline is not part of what it says.
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "folder":
        path.mkdir()
    elif damage == "link":
        (tmp_path / "elsewhere").write_bytes(content)
        try:
            path.symlink_to(tmp_path / "elsewhere")
        except OSError:
            pytest.skip("this account may not make links")
    broken = store.verify()
    assert [case.id for case in broken] == [record.id]
    assert name in broken[0].reason or "case.json" in broken[0].reason
    assert store.records() == [healthy]
    assert store.verify() == []
    (aside,) = store.set_aside()
    assert (aside.id, aside.reason) == (record.id, broken[0].reason)
    assert (aside.folder / "reason.txt").read_text().startswith(broken[0].reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"structure": {"value": 0, "name": "x", "color": "#000000"}}, r"structure\.value"),
        ({"split": "test"}, "split"),
        ({"shape": [16, 12]}, "another size"),
        ({"shape": [12, 16, 4]}, "shape"),
        ({"absent": True}, "absence"),
        ({"spacing": [5.0, 0.9]}, "another spacing"),
        ({"spacing": None}, "another spacing"),
        ({"files": {}}, "does not list the checksums"),
        ({"files": {"../secret.key": "0" * 64}}, "does not list the checksums"),
        ({"created": "yesterday"}, "created"),
        ({"created": "2026-01-01T00:00:00+01:00"}, "created"),
        ({"patient": "Doe^Jane"}, "patient"),
        ({"invented": 1}, "invented"),
        ({"id": "0" * 16}, "renamed copy"),
    ],
)
def test_records_that_contradict_the_case_are_broken(store, make_case, changes, reason) -> None:
    record = store.accept(make_case())
    change_record(store.case_folder(record.id), **changes)
    with pytest.raises(BrokenCaseError, match=reason) as caught:
        store.load(record.id)
    assert "Doe" not in str(caught.value)
    assert str(store.folder / "set-aside") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("mask.nrrd", np.full((12, 16), 2, np.uint8), "is not a mask"),
        ("mask.nrrd", np.ones((12, 16), np.int16), "is not a mask"),
        ("mask.nrrd", np.ones((12, 15), np.uint8), "is not a mask"),
        ("mask.nrrd", np.zeros((12, 16), np.uint8), "absence"),
        ("image.nrrd", np.zeros((12, 15), np.int16), "another size"),
        ("image.nrrd", np.zeros((12, 16, 1), np.int16), "not a readable image"),
    ],
)
def test_pixels_that_contradict_the_record_are_broken(
    store, make_case, name, array, reason
) -> None:
    record = store.accept(make_case())
    spacing = (0.8, 5.0, 1.0)[: array.ndim]
    replace_file(store.case_folder(record.id), name, array, spacing)
    with pytest.raises(BrokenCaseError, match=reason):
        store.load(record.id)


@pytest.mark.parametrize("name", ["image.nrrd", "thumbnail.png"])
def test_files_that_are_no_pictures_are_broken(store, make_case, name) -> None:
    record = store.accept(make_case())
    folder = store.case_folder(record.id)
    (folder / name).write_bytes(b"GIF89a but not really")
    files = record.files | {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()}
    change_record(folder, files=files)
    with pytest.raises(BrokenCaseError, match=f"{name} is not a readable"):
        store.load(record.id)


def test_a_copied_case_does_not_count_twice(store, make_case) -> None:
    record = store.accept(make_case())
    shutil.copytree(store.case_folder(record.id), store.folder / ("f" * 16))
    assert [case.id for case in store.verify()] == ["f" * 16]
    assert store.records() == [record]


def test_a_broken_record_is_set_aside_at_opening(store, make_case) -> None:
    record = store.accept(make_case())
    (store.case_folder(record.id) / "case.json").write_text("{")
    reopened = CaseStore(store.folder)
    assert reopened.records() == []
    assert [case.id for case in reopened.set_aside()] == [record.id]


def test_an_empty_case_folder_is_set_aside(store) -> None:
    (store.folder / ("a" * 16)).mkdir()
    assert store.records() == []
    assert store.set_aside()[0].reason == "case.json is missing"


def test_the_same_case_can_be_set_aside_again(store, make_case) -> None:
    record = store.accept(make_case())
    (store.case_folder(record.id) / "mask.nrrd").unlink()
    store.verify()
    shutil.copytree(store.set_aside()[0].folder, store.folder / record.id)
    store.verify()
    assert [case.folder.name for case in store.set_aside()] == [record.id, f"{record.id}-2"]


def test_loading_announces_that_a_case_is_gone(store, make_case) -> None:
    record = store.accept(make_case())
    (store.case_folder(record.id) / "mask.nrrd").unlink()
    seen: list[int] = []
    store.changed.connect(lambda: seen.append(len(store.records())))
    with pytest.raises(BrokenCaseError):
        store.load(record.id)
    assert seen == [0]


def test_cases_of_a_newer_version_stay_untouched(store, make_case, caplog) -> None:
    record = store.accept(make_case())
    change_record(store.case_folder(record.id), schema_version=2, something_new=True)
    reopened = CaseStore(store.folder)
    assert reopened.records() == []
    assert reopened.verify() == []
    assert "newer version" in caplog.text
    assert (store.folder / record.id).is_dir()
    with pytest.raises(NewerCaseError, match="update this one"):
        reopened.load(record.id)


def test_an_unreadable_case_is_told_and_stays(store, make_case, monkeypatch) -> None:
    record, other = store.accept(make_case()), store.accept(make_case())
    read_bytes = type(store.folder).read_bytes

    def refuse(path):
        if path.parent.name == record.id:
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(type(store.folder), "read_bytes", refuse)
    with pytest.raises(CaseStoreError, match="no permission"):
        store.load(record.id)
    (broken,) = store.verify()
    assert broken.id == record.id
    assert CaseStore(store.folder).records() == [other]
    monkeypatch.undo()
    assert store.verify() == []
    assert len(store.records()) == 2


def test_a_broken_cases_scan_keeps_its_split(store, make_case) -> None:
    for key in "abcdef":
        store.accept(make_case(scan_key=key, patient_key=None))
    for record in store.records():
        (store.case_folder(record.id) / "case.json").write_text("{")
        again = {case.scan: case.split for case in [record]}
        CaseStore(store.folder)
        key = next(key for key in "abcdef" if store.pseudonym(key) == record.scan)
        assert store.accept(make_case(scan_key=key, patient_key=None)).split == again[record.scan]
