import hashlib
import json
import stat
import sys
import threading
from datetime import UTC, datetime

import numpy as np
import pytest
import SimpleITK as sitk

from napari_fedsam.cases.case import CaseRecord, Structure
from napari_fedsam.cases.errors import CaseStoreError, InvalidCaseError
from napari_fedsam.cases.store import CaseStore

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no file modes")


def test_a_case_comes_back_as_it_was_given(store, make_case) -> None:
    new = make_case(seconds=12.5, clicks=3)
    before = datetime.now(UTC)
    record = store.accept(new)
    case = store.load(record.id)
    np.testing.assert_array_equal(case.image, new.image)
    np.testing.assert_array_equal(case.mask, new.mask)
    assert case.image.dtype == new.image.dtype
    assert case.mask.dtype == np.bool_
    assert case.record == record
    assert before <= record.created_at <= datetime.now(UTC)
    assert (record.shape, record.height_and_width) == ((12, 16), (12, 16))
    kept = ("structure", "window", "spacing", "prompts", "modality", "plane", "slice_index")
    for name in (*kept, "annotator", "model", "seconds", "clicks"):
        assert getattr(record, name) == getattr(new, name), name
    assert not record.absent


@pytest.mark.parametrize(
    "kind", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "rgb", "one pixel"]
)
def test_every_pixel_type_survives(store, make_case, kind) -> None:
    random = np.random.default_rng(1)
    shape = {"rgb": (5, 7, 3), "one pixel": (1, 1)}.get(kind, (5, 7))
    dtype = np.dtype(kind if len(kind) == 2 else "u1")
    image = random.integers(0, 256, shape).astype(dtype)
    if dtype.kind != "u" and dtype.itemsize > 1:
        image = image * dtype.type(-100)
    new = make_case(image=image, mask=np.ones(shape[:2], np.bool_), spacing=None)
    loaded = store.load(store.accept(new).id)
    assert loaded.image.dtype == dtype
    np.testing.assert_array_equal(loaded.image, image)
    assert loaded.record.shape == shape
    assert loaded.record.spacing is None


def test_the_files_are_plain_and_described_by_checksums(store, make_case) -> None:
    new = make_case()
    folder = store.case_folder(store.accept(new).id)
    names = {path.name for path in folder.iterdir()}
    assert names == {"image.nrrd", "mask.nrrd", "case.json", "thumbnail.png", "record.sha256"}
    image = sitk.ReadImage(str(folder / "image.nrrd"))
    assert image.GetSpacing() == (0.8, 5.0)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), new.image)
    record = json.loads((folder / "case.json").read_text())
    for name, expected in record["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == expected
    checksum, name = (folder / "record.sha256").read_text().split()
    assert checksum == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_absent_structures_are_cases(store, make_case) -> None:
    record = store.accept(make_case(mask=np.zeros((12, 16), np.bool_), prompts=[{"kind": "none"}]))
    assert record.absent
    assert not store.load(record.id).mask.any()
    assert store.verify() == []


def test_no_identifier_is_on_the_disk(store, make_case) -> None:
    store.accept(make_case(scan_key="1.2.840.99.4711", patient_key="Doe^Jane 4711"))
    for path in store.folder.rglob("*"):
        assert "4711" not in path.name
        if path.is_file():
            content = path.read_bytes()
            assert b"4711" not in content, path.name
            assert b"Doe" not in content, path.name


def test_ids_are_random_and_scans_keep_their_pseudonyms(store, make_case) -> None:
    first, second = store.accept(make_case()), store.accept(make_case())
    assert first.id != second.id
    assert first.id not in (first.scan, first.patient)
    assert first.scan == second.scan == store.pseudonym("scan one")
    assert first.patient == second.patient == store.pseudonym("Doe^Jane 4711")


def test_without_a_patient_the_scan_stands_for_it(store, make_case) -> None:
    record = store.accept(make_case(patient_key=None))
    assert record.patient == record.scan


def test_records_are_listed_by_age_and_filtered(store, make_case) -> None:
    liver = Structure(value=2, name="liver", color="#00ff00")
    train = store.accept(make_case(split="train"))
    val = store.accept(make_case(structure=liver, scan_key="2", patient_key="2", split="val"))
    last = store.accept(make_case(split="train"))
    assert store.records() == [train, val, last]
    assert store.records(structure="Liver") == [val]
    assert store.records(split="train") == [train, last]
    assert store.records(structure="liver", split="train") == []


def test_the_store_opens_again_with_all_cases(store, make_case) -> None:
    records = [store.accept(make_case(slice_index=index)) for index in range(3)]
    assert CaseStore(store.folder).records() == records


def test_another_opening_sees_changes_at_once(store, make_case) -> None:
    other = CaseStore(store.folder)
    record = store.accept(make_case())
    assert other.records() == [record]
    assert other.load(record.id).record == record
    other.delete(record.id)
    assert store.records() == []


@pytest.mark.parametrize("damage", ["", "[]", '{"cases": 3}', None])
def test_the_index_is_rebuilt_and_never_believed(store, make_case, damage) -> None:
    record = store.accept(make_case())
    index = store.folder / "index.json"
    if damage is None:
        index.unlink()
    else:
        index.write_text(damage)
    assert CaseStore(store.folder).records() == [record]
    assert [entry["id"] for entry in json.loads(index.read_text())["cases"]] == [record.id]


@posix_only
def test_only_the_owner_can_open_the_store(store, make_case) -> None:
    record = store.accept(make_case())
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.case_folder(record.id).stat().st_mode) == 0o700
    assert stat.S_IMODE((store.folder / "secret.key").stat().st_mode) == 0o600


def test_changes_are_announced_once_they_are_on_the_disk(store, make_case) -> None:
    seen: list[int] = []
    store.changed.connect(lambda: seen.append(len(CaseStore(store.folder).records())))
    record = store.accept(make_case())
    store.accept(make_case())
    store.delete(record.id)
    assert seen == [1, 2, 1]


def test_a_refused_case_leaves_nothing(store, make_case) -> None:
    store.accept(make_case(split="train"))
    before = sorted(store.folder.rglob("*"))
    with pytest.raises(InvalidCaseError, match='in the split "train"'):
        store.accept(make_case(split="val"))
    assert sorted(store.folder.rglob("*")) == before


def test_a_folder_of_other_things_is_not_taken_over(tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    mode = tmp_path.stat().st_mode
    with pytest.raises(CaseStoreError, match="choose an empty folder"):
        CaseStore(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert tmp_path.stat().st_mode == mode


def test_a_file_cannot_be_a_store(tmp_path) -> None:
    file = tmp_path / "cases"
    file.write_text("")
    for folder in (file, file / "inside"):
        with pytest.raises(CaseStoreError, match="could not be opened"):
            CaseStore(folder)


@pytest.mark.parametrize("name", ["0" * 16, "..", "../cases", "Doe^Jane", "", "set-aside"])
def test_unknown_ids_are_told(store, make_case, name) -> None:
    store.accept(make_case())
    for use in (store.load, store.delete, store.thumbnail_path, store.case_folder):
        with pytest.raises(CaseStoreError, match="There is no case") as caught:
            use(name)
        assert "Doe^Jane" not in str(caught.value)
    assert len(store.records()) == 1


def test_other_folders_and_extra_files_do_not_matter(store, make_case) -> None:
    record = store.accept(make_case())
    (store.case_folder(record.id) / ".DS_Store").write_bytes(b"a file manager was here")
    (store.folder / "notes").mkdir()
    reopened = CaseStore(store.folder)
    assert reopened.records() == [record]
    assert reopened.verify() == []
    reopened.delete(record.id)
    assert not (store.folder / record.id).exists()


def test_the_footprint_counts_all_files(store, make_case) -> None:
    empty = store.footprint()
    record = store.accept(make_case())
    files = store.case_folder(record.id).iterdir()
    assert store.footprint() >= empty + sum(path.stat().st_size for path in files)


def test_a_lost_secret_stops_accepting_but_not_reading(store, make_case) -> None:
    record = store.accept(make_case())
    (store.folder / "secret.key").unlink()
    reopened = CaseStore(store.folder)
    assert reopened.load(record.id).record == record
    with pytest.raises(CaseStoreError, match=r"secret\.key, is missing or damaged"):
        reopened.accept(make_case())
    assert reopened.records() == [record]


def test_threads_share_a_store(store, make_case) -> None:
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for index in range(4):
                record = store.accept(make_case(scan_key=f"{number}/{index}", patient_key=None))
                store.load(record.id)
                store.records()
                if index % 2:
                    store.delete(record.id)
        except BaseException as error:  # noqa: BLE001 - told by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(store.records()) == 8
    assert store.verify() == []


def test_records_are_frozen(store, make_case) -> None:
    record: CaseRecord = store.accept(make_case())
    with pytest.raises(ValueError, match="frozen"):
        record.split = "val"  # type: ignore[misc]
