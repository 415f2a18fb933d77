import hashlib

from hypothesis import given
from hypothesis import strategies as st

from napari_fedsam.cases.split import VALIDATION_SHARE, choose_split, read_remembered

pseudonyms = st.text("0123456789abcdef", min_size=16, max_size=16)


def name(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()[:16]


@given(st.lists(pseudonyms, unique=True, max_size=60))
def test_validation_stays_within_one_patient_of_a_fifth(patients) -> None:
    splits: dict[str, str] = {}
    for patient in patients:
        splits[patient] = choose_split(patient, splits)
        validating = sum(split == "val" for split in splits.values())
        assert abs(validating - VALIDATION_SHARE * len(splits)) <= 1
        assert validating >= 1 or len(splits) == 1


def test_the_first_trains_and_the_second_validates() -> None:
    for number in range(20):
        assert choose_split(name(number), {}) == "train"
        assert choose_split(name(number), {"0" * 16: "train"}) == "val"


def test_the_pseudonym_decides_in_between() -> None:
    others = {name(number): "val" if number < 2 else "train" for number in range(9)}
    assert choose_split("0" * 16, others) == "val"
    assert choose_split("3" + "0" * 15, others) == "val"
    assert choose_split("4" + "0" * 15, others) == "train"
    assert choose_split("f" * 16, others) == "train"


def test_scans_of_one_patient_stay_together(store, make_case) -> None:
    for number in range(12):
        for scan in range(2):
            store.accept(make_case(scan_key=f"{number}/{scan}", patient_key=f"patient {number}"))
    sides: dict[str, set[str]] = {}
    for record in store.records():
        sides.setdefault(record.patient, set()).add(record.split)
    assert len(sides) == 12
    assert all(len(side) == 1 for side in sides.values())
    assert 1 <= sum(side == {"val"} for side in sides.values()) <= 3


def test_a_wish_is_honoured_and_then_binds(store, make_case) -> None:
    first = store.accept(make_case(split="val"))
    assert first.split == "val"
    assert store.accept(make_case()).split == "val"
    assert store.accept(make_case(scan_key="another scan")).split == "val"


def test_a_scan_keeps_its_split_when_its_patient_becomes_known(store, make_case) -> None:
    store.accept(make_case(scan_key="1", patient_key=None, split="train"))
    store.accept(make_case(scan_key="2", patient_key="p", split="val"))
    assert store.accept(make_case(scan_key="1", patient_key="p")).split == "train"


def test_annotating_anew_after_a_deletion_does_not_change_sides(store, make_case) -> None:
    for split in ("train", "val"):
        key = f"scan {split}"
        record = store.accept(make_case(scan_key=key, patient_key=None, split=split))
        store.delete(record.id)
        assert store.accept(make_case(scan_key=key, patient_key=None)).split == split


def test_a_deleted_patient_is_not_remembered(store, make_case) -> None:
    record = store.accept(make_case(split="val"))
    store.delete(record.id)
    assert read_remembered(store.folder / "splits.json")
    again = store.accept(make_case())
    store.delete_patient(again.patient)
    assert read_remembered(store.folder / "splits.json") == []


def test_a_damaged_memory_counts_as_empty(store, make_case, caplog) -> None:
    (store.folder / "splits.json").write_text('{"origins": [{}]}')
    assert store.accept(make_case()).split == "train"
    assert "splits.json is damaged" in caplog.text
