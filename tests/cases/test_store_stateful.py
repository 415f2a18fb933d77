"""Any order of accepting, deleting, damaging and reopening keeps the store's promises."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from napari_fedsam.cases.case import NewCase, Structure
from napari_fedsam.cases.errors import BrokenCaseError
from napari_fedsam.cases.store import CaseStore

shapes = arrays.array_shapes(min_dims=2, max_dims=2, max_side=5)
keys = st.sampled_from("abcd")
files = st.sampled_from(["image.nrrd", "mask.nrrd", "case.json", "thumbnail.png", "record.sha256"])


class StoreMachine(RuleBasedStateMachine):
    cases = Bundle("cases")

    def __init__(self) -> None:
        super().__init__()
        self.parent = Path(tempfile.mkdtemp())
        self.store = CaseStore(self.parent / "cases")
        self.kept: dict[str, NewCase] = {}
        self.damaged: set[str] = set()
        self.deleted: set[str] = set()
        self.splits: dict[str, str] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.parent)

    @rule(target=cases, data=st.data(), scan=keys, patient=st.none() | keys)
    def accept(self, data, scan, patient) -> str:
        shape = data.draw(shapes)
        new = NewCase(
            image=data.draw(arrays.arrays(np.uint8, shape)),
            mask=data.draw(arrays.arrays(np.bool_, shape)),
            structure=Structure(value=1, name="spleen", color="#ff0000"),
            window=(0, 255),
            scan_key=f"scan {scan}",
            patient_key=patient and f"patient {patient}",
        )
        record = self.store.accept(new)
        assert self.splits.setdefault(record.scan, record.split) == record.split
        self.kept[record.id] = new
        return record.id

    @rule(case_id=consumes(cases))
    def delete(self, case_id) -> None:
        if case_id in self.kept or case_id in self.damaged:
            assert self.store.delete(case_id).ids == (case_id,)
            self.forget([case_id])

    @rule(case_id=cases)
    def delete_patient(self, case_id) -> None:
        mine = [record for record in self.store.records() if record.id == case_id]
        for record in mine:
            report = self.store.delete_patient(record.patient)
            assert case_id in report.ids
            self.forget(report.ids)
            # Whoever is deleted as a patient may be judged anew.
            left = {other.scan for other in self.store.records()}
            self.splits = {scan: split for scan, split in self.splits.items() if scan in left}

    @rule(case_id=cases, name=files, keep=st.integers(0, 40))
    def damage(self, case_id, name, keep) -> None:
        path = self.store.folder / case_id / name
        if case_id in self.kept and path.exists():
            path.write_bytes(path.read_bytes()[:keep])
            del self.kept[case_id]
            self.damaged.add(case_id)

    @rule()
    def reopen(self) -> None:
        (self.store.folder / ".new-0123456789abcdef").mkdir()
        self.store = CaseStore(self.store.folder)

    @rule(case_id=cases)
    def load(self, case_id) -> None:
        if case_id in self.kept:
            case = self.store.load(case_id)
            np.testing.assert_array_equal(case.image, self.kept[case_id].image)
            np.testing.assert_array_equal(case.mask, self.kept[case_id].mask)
        elif case_id in self.damaged and (self.store.folder / case_id).exists():
            try:
                self.store.load(case_id)
            except BrokenCaseError:
                return
            raise AssertionError("a damaged case was used")

    @rule()
    def verify(self) -> None:
        self.store.verify()
        assert {case.id for case in self.store.set_aside()} == self.damaged
        assert {record.id for record in self.store.records()} == self.kept.keys()

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        listed = {record.id for record in self.store.records()}
        aside = {case.id for case in self.store.set_aside()}
        assert self.kept.keys() <= listed <= self.kept.keys() | self.damaged
        assert not listed & aside
        assert listed | aside == self.kept.keys() | self.damaged
        assert not (listed | aside) & self.deleted

    def forget(self, ids) -> None:
        self.deleted.update(ids)
        self.damaged.difference_update(ids)
        for case_id in ids:
            self.kept.pop(case_id, None)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(
    max_examples=25,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
