"""What is accepted is written into the segmentation and kept as a case."""

import numpy as np
import pytest

from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.errors import FedSamError


def test_accept_writes_the_mask_and_keeps_a_case(session, clicked, shown, heard, store):
    mask = clicked(session).mask
    accepted = heard(session.accepted)
    acceptance = session.accept()
    assert np.array_equal(shown(session) == 1, mask)
    assert session.preview is None
    assert session.ask.is_empty
    (record,) = store.records()
    assert accepted == [(acceptance,)]
    assert acceptance.record == record


def test_the_case_holds_the_slice_as_displayed_and_its_provenance(session, clicked, store, scan):
    session.view.show_slice(1, 4)
    mask = clicked(session, 3, 2).mask
    session.accept()
    case = store.load(store.records()[0].id)
    record = case.record
    assert np.array_equal(case.image, scan.orientation.to_display(scan.pixels)[:, 4])
    assert np.array_equal(case.mask, mask)
    assert record.plane == "coronal"
    assert record.slice_index == 4
    assert record.spacing == pytest.approx((3.0, 0.5))
    assert record.window == pytest.approx((session.view.window.low, session.view.window.high))
    assert record.annotator == "anna"
    assert record.model == "Disc"
    assert record.modality == "MR"
    assert record.clicks == 1
    assert record.prompts == ({"kind": "point", "xy": [3.0, 2.0], "positive": True},)
    assert "P1" not in record.model_dump_json()


def test_all_slices_of_a_scan_are_in_one_split(session, clicked, store):
    for _ in range(3):
        clicked(session)
        session.accept()
        session.view.next_slice()
    assert len({(record.scan, record.split) for record in store.records()}) == 1


def test_nothing_to_accept_is_said(session):
    with pytest.raises(AnnotationError, match="There is no structure 1 to accept"):
        session.accept()


def test_an_answer_under_way_cannot_be_accepted(session):
    session.add_click(10, 8)
    with pytest.raises(AnnotationError, match="still being computed"):
        session.accept()


def test_a_mask_drawn_by_hand_can_be_accepted(session, shown, store):
    shown(session)[4:8, 4:8] = 1
    session.accept()
    (record,) = store.records()
    assert record.model == "by hand"
    assert store.load(record.id).mask.sum() == 16


def test_drawing_by_hand_is_kept_beside_the_preview(session, clicked, shown, store):
    shown(session)[15:18, 25:28] = 1
    clicked(session)
    session.accept()
    mask = store.load(store.records()[0].id).mask
    assert mask[16, 26]
    assert mask[8, 10]


def test_other_structures_outside_the_mask_are_untouched(session, clicked, shown):
    shown(session)[:] = 7
    mask = clicked(session).mask
    session.accept()
    assert (shown(session)[~mask] == 7).all()
    assert (shown(session)[mask] == 1).all()


def test_accepting_again_replaces_the_object_and_the_case(session, clicked, shown, store):
    clicked(session, 8, 8)
    session.accept()
    mask = clicked(session, 10, 8).mask
    session.accept()
    assert np.array_equal(shown(session)[5:12, 7:14] == 1, mask[5:12, 7:14])
    (record,) = store.records()
    assert np.array_equal(store.load(record.id).mask, shown(session) == 1)


def test_several_objects_of_a_structure_are_accepted_one_after_another(
    session, clicked, shown, store
):
    first = clicked(session, 5, 5).mask
    session.accept()
    second = clicked(session, 20, 12).mask
    session.accept()
    assert np.array_equal(shown(session) == 1, first | second)
    (record,) = store.records()
    assert np.array_equal(store.load(record.id).mask, first | second)


def test_what_was_erased_by_hand_stays_erased(session, clicked, shown):
    clicked(session, 8, 8)
    session.accept()
    shown(session)[8, 8:11] = 0
    clicked(session, 8, 7)
    session.accept()
    assert not shown(session)[8, 9:11].any()
    assert shown(session)[7, 8]


def test_others_are_spared_where_one_chooses_so(session, clicked, shown, store):
    shown(session)[:, 10:] = 7
    session.set_preserve_others(True)
    mask = clicked(session, 10, 8).mask
    session.accept()
    assert (shown(session)[:, 10:] == 7).all()
    expected = mask.copy()
    expected[:, 10:] = False
    assert np.array_equal(shown(session) == 1, expected)
    assert np.array_equal(store.load(store.records()[0].id).mask, expected)


def test_absent_is_kept_as_an_empty_mask(session, shown, store):
    shown(session)[0, 0] = 1
    session.accept_absent()
    assert not shown(session).any()
    (record,) = store.records()
    assert record.absent


def test_false_positives_on_absent_slices_are_reported(session, store, site_model):
    session.use_model(site_model)
    session.propose()
    session.answering.run_pending()
    acceptance = session.accept_absent()
    assert acceptance.false_positive_pixels == 16
    assert store.records()[0].prompts == ({"kind": "none", "false_positive_pixels": 16},)


def test_absent_after_clicks_reports_no_false_positives(session, clicked):
    clicked(session)
    assert session.accept_absent().false_positive_pixels is None


class FailingDisk:
    """A disk that is full for one job."""

    def __init__(self):
        self.full = True

    def run(self, job, done, failed):
        if self.full:
            failed(FedSamError("The disk is full."))
        else:
            done(job())


def test_when_a_case_cannot_be_kept_everything_is_as_before(
    session_on, clicked, shown, heard, store
):
    disk = FailingDisk()
    session = session_on(disk)
    mask = clicked(session).mask
    errors = heard(session.failed)
    session.accept()
    assert [str(error) for (error,) in errors] == ["The disk is full."]
    assert not session.segmentation.any()
    assert session.ask.prompt_count == 1
    disk.full = False
    session.answering.run_pending()
    session.accept()
    assert np.array_equal(shown(session) == 1, mask)
    assert len(store.records()) == 1
