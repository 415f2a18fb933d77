import json
import shutil
from pathlib import Path

import pytest

from napari_fedsam.cases import deletion
from napari_fedsam.cases.errors import CaseStoreError
from napari_fedsam.cases.store import CaseStore


def deleted_ids(store) -> list[str]:
    lines = (store.folder / "deletions.jsonl").read_text().splitlines()
    return [json.loads(line)["id"] for line in lines]


def files_naming(store, text: str) -> list[str]:
    paths = (path for path in store.folder.rglob("*") if path.is_file())
    return [path.name for path in paths if text.encode() in path.read_bytes()]


def test_a_deleted_case_is_gone_and_logged(store, make_case) -> None:
    gone, kept = store.accept(make_case()), store.accept(make_case())
    report = store.delete(gone.id)
    assert report.ids == (gone.id,)
    assert store.records() == [kept]
    assert deleted_ids(store) == [gone.id]
    assert not list(store.folder.glob(f"*{gone.id}*"))


def test_the_report_says_what_remains(store, make_case) -> None:
    text = store.delete(store.accept(make_case()).id).remains
    assert "1 case is gone" in text
    assert "trained before this deletion still carry the influence" in text
    assert "already sent to a federation cannot be recalled" in text
    assert "exported or backed up" in text


def test_all_cases_of_a_patient_go(store, make_case) -> None:
    other = store.accept(make_case(scan_key="other", patient_key="other"))
    gone = [store.accept(make_case(scan_key=scan)) for scan in ("a", "a", "b")]
    before_the_patient_was_known = store.accept(make_case(scan_key="b", patient_key=None))
    report = store.delete_patient(store.pseudonym("Doe^Jane 4711"))
    expected = {record.id for record in (*gone, before_the_patient_was_known)}
    assert set(report.ids) == expected
    assert store.records() == [other]
    assert set(deleted_ids(store)) == expected
    assert f"{len(expected)} cases are gone" in report.remains
    assert files_naming(store, gone[0].patient) == []
    assert files_naming(store, gone[0].scan) == []


def test_a_scan_can_be_deleted_by_its_pseudonym(store, make_case) -> None:
    gone, kept = store.accept(make_case(scan_key="a")), store.accept(make_case(scan_key="b"))
    assert store.delete_patient(gone.scan).ids == (gone.id,)
    assert store.records() == [kept]


@pytest.mark.parametrize("nobodys", ["0" * 16, "f" * 16])
def test_broken_cases_of_the_patient_go_too(store, make_case, nobodys) -> None:
    damaged, lost = store.accept(make_case()), store.accept(make_case())
    (store.case_folder(damaged.id) / "image.nrrd").write_bytes(b"")
    shutil.rmtree(store.case_folder(lost.id))
    (store.folder / lost.id).mkdir()
    (store.folder / nobodys).mkdir()
    reopened = CaseStore(store.folder)
    reopened.verify()
    report = reopened.delete_patient(damaged.patient)
    assert set(report.ids) == {damaged.id, lost.id}
    assert [case.id for case in reopened.set_aside()] == [nobodys]
    assert "1 broken case(s)" in report.remains
    assert files_naming(store, damaged.patient) == []


def test_a_case_that_was_set_aside_can_be_deleted(store, make_case) -> None:
    record = store.accept(make_case())
    (store.case_folder(record.id) / "image.nrrd").write_bytes(b"")
    store.verify()
    assert store.delete(record.id).ids == (record.id,)
    assert store.set_aside() == []
    assert deleted_ids(store) == [record.id]


def test_an_unknown_patient_is_told(store, make_case) -> None:
    store.accept(make_case())
    with pytest.raises(CaseStoreError, match="No case of this patient"):
        store.delete_patient("Doe^Jane")
    assert len(store.records()) == 1


def test_a_patient_whose_cases_were_deleted_singly_can_be_forgotten(store, make_case) -> None:
    record = store.accept(make_case())
    store.delete(record.id)
    assert files_naming(store, record.patient) == ["splits.json"]
    assert store.delete_patient(record.patient).ids == ()
    assert files_naming(store, record.patient) == []


@pytest.mark.parametrize("kind", [".deleted-", ".forgotten-"])
def test_an_interrupted_deletion_is_finished_at_the_next_opening(store, make_case, kind) -> None:
    record = store.accept(make_case())
    store.case_folder(record.id).rename(store.folder / f"{kind}{record.id}-00000000")
    reopened = CaseStore(store.folder)
    assert reopened.records() == []
    assert not list(store.folder.glob(f"{kind}*"))
    assert deleted_ids(store) == [record.id]
    remembered = files_naming(store, record.patient)
    assert remembered == (["splits.json"] if kind == ".deleted-" else [])


def test_a_torn_line_in_the_log_does_not_spoil_the_next(store, make_case) -> None:
    record = store.accept(make_case())
    (store.folder / "deletions.jsonl").write_text('{"id": "12')
    store.delete(record.id)
    last = (store.folder / "deletions.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["id"] == record.id


def encoded(store) -> list[Path]:
    """Put what training and annotating keep beside a store, and something of somebody else's."""
    site = store.folder.parent
    entries = [
        site / "cache" / f"{'a1' * 32}.safetensors",
        site / "encoded" / f"{'b2' * 32}.zarr" / "c" / "0",
        # What was being written when somebody was killed.
        site / "cache" / f".{'c3' * 32}.ab_12x.safetensors",
        site / "encoded" / f".{'d4' * 32}-0a1b2c3d" / "zarr.json",
        site / "cache" / "notes.txt",
    ]
    for entry in entries:
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.write_bytes(b"x")
    return entries


@pytest.mark.parametrize("by", ["case", "patient"])
def test_what_the_encoder_made_of_deleted_images_goes_too(store, make_case, by) -> None:
    record = store.accept(make_case())
    *features, other = encoded(store)
    report = store.delete(record.id) if by == "case" else store.delete_patient(record.patient)
    assert not any(entry.exists() for entry in features)
    assert other.exists()
    assert "what the encoder made of the images" in report.remains


def test_a_case_that_is_replaced_leaves_what_the_encoder_made(store, make_case) -> None:
    record = store.accept(make_case())
    features = encoded(store)
    store.delete(record.id, image_stays=True)
    assert all(entry.exists() for entry in features)


def test_an_interrupted_deletion_takes_what_the_encoder_made_at_the_next_opening(
    store, make_case, monkeypatch
) -> None:
    record = store.accept(make_case())
    *features, _ = encoded(store)

    def fails(_store):
        raise PermissionError("locked")

    with monkeypatch.context() as patch:
        patch.setattr(deletion, "_forget_features", fails)
        with pytest.raises(CaseStoreError):
            store.delete(record.id)
    assert all(entry.exists() for entry in features)
    assert CaseStore(store.folder).records() == []
    assert not any(entry.exists() for entry in features)
