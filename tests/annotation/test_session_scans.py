"""Scans one after another in a session, each with what was done on it."""

import dataclasses

import numpy as np
import pytest

from napari_fedsam.cases.case import Structure
from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.scan import Scan

SPLEEN = Structure(value=1, name="spleen", color="#112233")


def test_a_scan_has_work_once_something_was_done_on_it(session, clicked):
    assert not session.has_work
    clicked(session)
    assert session.has_work
    session.clear()
    # It can be undone.
    assert session.has_work
    scan = session.scan
    session.close_scan()
    session.open_scan(scan)
    assert not session.has_work
    session.segmentation[0, 0, 0] = 1
    assert session.has_work
    session.close_scan()
    assert not session.has_work


@pytest.fixture
def other(scan) -> Scan:
    return dataclasses.replace(scan, name="other", source=scan.source.with_name("other.nii"))


def test_what_was_done_on_a_scan_is_there_again_after_another_one(
    session, clicked, shown, store, scan, other
):
    clicked(session)
    kept = session.accept()
    mask = shown(session).copy()
    session.view.next_slice()
    clicked(session, 5, 5)
    session.open_scan(other)
    assert session.ask.is_empty
    assert not session.has_work
    assert not session.undo()
    session.open_scan(scan)
    session.view.next_slice()
    assert session.ask.prompt_count == 1
    assert session.acceptances == {kept.place: kept}
    # What is accepted is spared, and takes the place of the earlier case.
    assert session.put_masks(0, 1, {3: np.ones_like(mask)}) == 0
    session.view.next_slice(-1)
    assert np.array_equal(shown(session), mask)
    clicked(session, 20, 12)
    session.accept()
    assert len(store.records()) == 1
    while session.undo():
        pass
    assert not session.asks
    assert not session.acceptances
    assert not session.segmentation.any()
    assert store.records() == []


class SlowDisk:
    """Fails when it is told to."""

    def __init__(self):
        self.reports = []

    def run(self, job, done, failed):
        self.reports.append(failed)

    def fail(self):
        self.reports.pop()(FedSamError("The disk is full."))


def test_what_cannot_be_kept_after_another_scan_was_opened_is_as_before_accepting(
    session_on, clicked, heard, scan, other
):
    disk = SlowDisk()
    session = session_on(disk)
    mask = clicked(session).mask
    session.accept()
    errors = heard(session.failed)
    session.open_scan(other)
    disk.fail()
    assert [str(error) for (error,) in errors] == [
        f"On {scan.name}, which is not shown now: The disk is full."
    ]
    session.open_scan(scan)
    assert not session.acceptances
    assert not session.segmentation.any()
    assert session.ask.prompt_count == 1
    session.answering.run_pending()
    assert np.array_equal(session.preview.mask, mask)
    session.undo()
    assert session.ask.is_empty


def test_a_scan_that_was_taken_off_is_forgotten_while_another_is_open(
    session, clicked, scan, other
):
    clicked(session)
    session.open_scan(other)
    session.forget_scan(scan)
    session.open_scan(scan)
    assert not session.has_work


def test_time_with_another_scan_is_no_time_of_annotating(
    session, clicked, scan, other, monkeypatch
):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clicked(session)
    now[0] += 3
    session.open_scan(other)
    now[0] += 1000
    session.open_scan(scan)
    session.answering.run_pending()
    now[0] += 4
    assert session.accept().new.seconds == pytest.approx(7)


def test_closing_a_scan_forgets_prompts_but_not_cases(session, clicked, store):
    clicked(session)
    session.accept()
    session.close_scan()
    assert session.scan is None
    assert not session.undo()
    assert len(store.records()) == 1
    assert session.answering.pending_work() is None


def test_each_scan_keeps_the_structures_that_its_masks_refer_to(session, clicked, scan, other):
    session.view.offer_structures((Structure(value=1, name="liver", color="#445566"),))
    clicked(session)
    session.open_scan(other)
    session.offer_structures((SPLEEN,))
    session.open_scan(scan)
    assert [(each.value, each.name) for each in session.view.structures] == [
        (1, "liver"),
        (2, "spleen"),
    ]
    assert session.view.structure.name == "liver"
