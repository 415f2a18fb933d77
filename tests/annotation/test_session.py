import dataclasses

import numpy as np
import pytest

from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.slices import SliceKey
from napari_fedsam.cases.case import Structure
from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.window import Window, apply_window


def clicked(session, x=10.0, y=8.0, *, positive=True):
    session.add_click(x, y, positive=positive)
    session.answering.run_pending()
    return session.preview


def shown(session):
    """The slice of the segmentation that is on screen."""
    return session.view.slice.pixels(session.segmentation)


def heard(signal):
    calls = []
    signal.connect(lambda *args: calls.append(args))
    return calls


# --- looking


def test_a_scan_opens_on_the_middle_slice_of_its_acquired_plane(session, scan):
    axis = scan.orientation.display_axis(scan.slice_axis)
    assert session.view.slice == SliceKey(axis, 3)
    assert session.view.display.shape == (6, 20, 30)
    assert session.segmentation.shape == (6, 20, 30)


def test_slices_stop_at_the_ends(session):
    session.view.show_slice(0, 99)
    assert session.view.slice.index == 5
    session.view.next_slice()
    assert session.view.slice.index == 5
    session.view.next_slice(-9)
    assert session.view.slice.index == 0


def test_the_slice_on_screen_is_encoded_ahead_and_once(session, predictor):
    assert len(predictor.encoded) == 1
    clicked(session)
    clicked(session, 12, 9)
    assert len(predictor.encoded) == 1
    session.view.next_slice()
    session.answering.run_pending()
    session.view.next_slice(-1)
    session.answering.run_pending()
    assert len(predictor.encoded) == 2


def test_the_model_sees_the_window(session, predictor):
    session.view.set_window(Window(100, 300))
    session.answering.run_pending()
    expected = apply_window(session.view.slice.pixels(session.view.display), Window(100, 300))
    assert np.array_equal(predictor.encoded[-1], expected)


# --- prompting


def test_a_click_gives_a_preview_of_that_place(session):
    preview = clicked(session)
    assert preview.mask[8, 10]
    assert preview.place == session.view.place
    assert not session.segmentation.any()


def test_prompts_belong_to_their_slice_and_structure(session):
    clicked(session)
    session.view.next_slice()
    assert session.ask.is_empty
    assert session.preview is None
    session.view.next_slice(-1)
    assert session.ask.prompt_count == 1
    session.view.add_structure("liver")
    assert session.ask.is_empty


def test_work_for_another_place_is_dropped(session):
    session.add_click(10, 8)
    work = session.answering.pending_work()
    session.view.next_slice()
    session.answering.finish(work, work.run())
    assert session.preview is None


def test_work_of_another_model_is_dropped(session, site_model):
    session.add_click(10, 8)
    work = session.answering.pending_work()
    session.use_model(site_model)
    session.answering.finish(work, work.run())
    assert session.preview is None
    session.answering.run_pending()
    assert session.preview.model is site_model


def test_encoding_of_a_closed_scan_is_dropped(session, scan):
    session.view.next_slice()
    work = session.answering.pending_work()
    session.open_scan(dataclasses.replace(scan))
    session.view.show_slice(work.key[1].axis, work.key[1].index)
    session.answering.finish(work, work.run())
    assert not session.answering.is_encoded


def test_while_the_next_answer_is_computed_the_one_before_stays(session):
    first = clicked(session)
    session.add_click(15, 8)
    assert session.preview is first
    assert not session.answering.is_current


def test_a_refused_prompt_is_told_once_and_not_tried_again(session):
    errors = heard(session.failed)
    clicked(session, positive=False)
    session.answering.run_pending()
    assert len(errors) == 1
    assert session.answering.pending_work() is None
    clicked(session, 12, 8)
    assert session.preview.mask[8, 12]


def test_prompting_needs_a_scan(store):
    with pytest.raises(AnnotationError, match="open one"):
        AnnotationSession(store).add_click(1, 1)


def test_a_base_model_proposes_nothing(session):
    with pytest.raises(AnnotationError, match="has not learned to propose"):
        session.propose()
    assert session.ask.is_empty


def test_a_personalised_model_proposes_the_structures_it_knows(session, site_model):
    session.use_model(site_model)
    session.propose()
    session.answering.run_pending()
    assert session.preview.mask[2:6, 2:6].all()
    assert site_model.predictor.asked[-1][1] == 1
    session.view.add_structure("liver")
    assert not session.can_propose


def test_clicks_correct_a_proposal(session, site_model):
    session.use_model(site_model)
    session.propose()
    session.answering.run_pending()
    clicked(session, 20, 15)
    assert session.preview.mask[3, 3]
    assert session.preview.mask[15, 20]


def test_auto_propose_asks_on_arrival_but_not_where_accepted(session, site_model):
    session.use_model(site_model)
    session.auto_propose = True
    session.view.next_slice()
    assert session.ask == Ask(proposal=True)
    session.answering.run_pending()
    session.accept()
    session.view.next_slice(-1)
    session.view.next_slice()
    assert session.ask.is_empty


def test_a_new_model_answers_the_same_prompts(session, site_model):
    clicked(session)
    ask = session.ask
    changes = heard(session.model_changed)
    session.use_model(site_model)
    assert changes
    assert session.ask == ask
    session.answering.run_pending()
    assert session.preview.model is site_model


# --- accepting


def test_accept_writes_the_mask_and_keeps_a_case(session, store):
    mask = clicked(session).mask
    accepted = heard(session.accepted)
    acceptance = session.accept()
    assert np.array_equal(shown(session) == 1, mask)
    assert session.preview is None
    assert session.ask.is_empty
    (record,) = store.records()
    assert accepted == [(acceptance,)]
    assert acceptance.record == record


def test_the_case_holds_the_slice_as_displayed_and_its_provenance(session, store, scan):
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


def test_all_slices_of_a_scan_are_in_one_split(session, store):
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


def test_a_mask_drawn_by_hand_can_be_accepted(session, store):
    shown(session)[4:8, 4:8] = 1
    session.accept()
    (record,) = store.records()
    assert record.model == "by hand"
    assert store.load(record.id).mask.sum() == 16


def test_drawing_by_hand_is_kept_beside_the_preview(session, store):
    shown(session)[15:18, 25:28] = 1
    clicked(session)
    session.accept()
    mask = store.load(store.records()[0].id).mask
    assert mask[16, 26]
    assert mask[8, 10]


def test_other_structures_outside_the_mask_are_untouched(session):
    shown(session)[:] = 7
    mask = clicked(session).mask
    session.accept()
    assert (shown(session)[~mask] == 7).all()
    assert (shown(session)[mask] == 1).all()


def test_accepting_again_replaces_the_object_and_the_case(session, store):
    clicked(session, 8, 8)
    session.accept()
    mask = clicked(session, 10, 8).mask
    session.accept()
    assert np.array_equal(shown(session)[5:12, 7:14] == 1, mask[5:12, 7:14])
    (record,) = store.records()
    assert np.array_equal(store.load(record.id).mask, shown(session) == 1)


def test_several_objects_of_a_structure_are_accepted_one_after_another(session, store):
    first = clicked(session, 5, 5).mask
    session.accept()
    second = clicked(session, 20, 12).mask
    session.accept()
    assert np.array_equal(shown(session) == 1, first | second)
    (record,) = store.records()
    assert np.array_equal(store.load(record.id).mask, first | second)


def test_what_was_erased_by_hand_stays_erased(session):
    clicked(session, 8, 8)
    session.accept()
    shown(session)[8, 8:11] = 0
    clicked(session, 8, 7)
    session.accept()
    assert not shown(session)[8, 9:11].any()
    assert shown(session)[7, 8]


def test_others_are_spared_where_one_chooses_so(session, store):
    shown(session)[:, 10:] = 7
    session.set_preserve_others(True)
    mask = clicked(session, 10, 8).mask
    session.accept()
    assert (shown(session)[:, 10:] == 7).all()
    expected = mask.copy()
    expected[:, 10:] = False
    assert np.array_equal(shown(session) == 1, expected)
    assert np.array_equal(store.load(store.records()[0].id).mask, expected)


def test_absent_is_kept_as_an_empty_mask(session, store):
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


def test_absent_after_clicks_reports_no_false_positives(session):
    clicked(session)
    assert session.accept_absent().false_positive_pixels is None


# --- undoing


def test_undo_takes_prompts_back_one_by_one(session):
    clicked(session)
    clicked(session, 15, 8)
    session.undo()
    session.answering.run_pending()
    assert session.ask.prompt_count == 1
    assert not session.preview.mask[8, 15 + 2]
    session.undo()
    assert session.ask.is_empty
    assert session.preview is None
    assert not session.undo()


def test_undoing_an_accept_withdraws_mask_and_case_and_brings_the_prompts_back(session, store):
    clicked(session)
    ask = session.ask
    withdrawn = heard(session.withdrawn)
    session.accept()
    session.undo()
    assert not session.segmentation.any()
    assert store.records() == []
    assert session.ask == ask
    assert len(withdrawn) == 1


def test_undo_goes_back_to_where_it_was_done(session, store):
    clicked(session)
    session.accept()
    where = session.view.slice
    session.view.show_slice(2, 1)
    session.view.add_structure("liver")
    session.undo()
    assert session.view.slice == where
    assert session.view.structure.value == 1


def test_undo_spares_what_was_painted_since(session):
    clicked(session)
    session.accept()
    shown(session)[8, 10] = 5
    session.undo()
    assert shown(session)[8, 10] == 5
    assert np.count_nonzero(session.segmentation) == 1


def test_undoing_a_replacement_brings_the_first_case_back(session, store):
    first = clicked(session, 5, 5).mask
    session.accept()
    clicked(session, 20, 12)
    session.accept()
    session.undo()
    (record,) = store.records()
    assert np.array_equal(store.load(record.id).mask, first)
    assert np.array_equal(shown(session) == 1, first)
    session.redo()
    (record,) = store.records()
    assert np.array_equal(store.load(record.id).mask, shown(session) == 1)
    assert shown(session)[12, 20]


def test_undo_survives_that_someone_deleted_the_case(session, store):
    clicked(session)
    session.accept()
    store.delete(store.records()[0].id)
    errors = heard(session.failed)
    session.undo()
    assert not errors
    assert not session.segmentation.any()


def test_clear_is_one_undo_step(session):
    clicked(session)
    clicked(session, 15, 8)
    session.clear()
    assert session.ask.is_empty
    session.undo()
    assert session.ask.prompt_count == 2


class FailingDisk:
    """A disk that is full for one job."""

    def __init__(self):
        self.full = True

    def run(self, job, done, failed):
        if self.full:
            failed(FedSamError("The disk is full."))
        else:
            done(job())


def test_when_a_case_cannot_be_kept_everything_is_as_before(store, scan, model):
    disk = FailingDisk()
    session = AnnotationSession(store, disk=disk)
    session.use_model(model)
    session.open_scan(scan)
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


# --- structures


def test_added_structures_get_the_next_value_and_their_own_colour(session):
    liver = session.view.add_structure("liver")
    assert (liver.value, liver.name) == (2, "liver")
    assert liver.color != session.view.structures[0].color
    assert session.view.structure == liver


@pytest.mark.parametrize("name", ["", "  ", "Structure 1", "two\nlines"])
def test_bad_structure_names_are_refused(session, name):
    with pytest.raises(AnnotationError):
        session.view.add_structure(name)
    assert len(session.view.structures) == 1


def test_offered_structures_replace_the_others(session):
    spleen = Structure(value=1, name="spleen", color="#112233")
    session.view.offer_structures((spleen,))
    assert session.view.structure == spleen
    with pytest.raises(AnnotationError, match="No structure has the value 9"):
        session.view.choose_structure(9)
    with pytest.raises(AnnotationError, match="No structure is on offer"):
        session.view.offer_structures(())


def test_a_scan_has_work_once_something_was_done_on_it(session):
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


def test_what_was_done_on_a_scan_is_there_again_after_another_one(session, store, scan, other):
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


def test_a_scan_that_was_taken_off_is_forgotten_while_another_is_open(session, scan, other):
    clicked(session)
    session.open_scan(other)
    session.forget_scan(scan)
    session.open_scan(scan)
    assert not session.has_work


def test_time_with_another_scan_is_no_time_of_annotating(session, scan, other, monkeypatch):
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


SPLEEN = Structure(value=1, name="spleen", color="#112233")


def test_structures_that_are_agreed_on_later_leave_masks_what_they_are(session, store):
    session.view.offer_structures((Structure(value=1, name="liver", color="#445566"),))
    clicked(session)
    session.accept()
    session.offer_structures((SPLEEN, Structure(value=2, name="Liver", color="#445566")))
    assert [(each.value, each.name) for each in session.view.structures] == [
        (1, "liver"),
        (2, "spleen"),
    ]
    assert session.view.structure.name == "liver"
    clicked(session, 20, 12)
    session.accept()
    assert [record.structure.name for record in store.records()] == ["liver"]
    assert session.undo()


def test_without_work_the_structures_agreed_on_take_the_place_of_the_others(session):
    session.offer_structures((SPLEEN,))
    assert session.view.structures == (SPLEEN,)


def test_each_scan_keeps_the_structures_that_its_masks_refer_to(session, scan, other):
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


def test_closing_a_scan_forgets_prompts_but_not_cases(session, store):
    clicked(session)
    session.accept()
    session.close_scan()
    assert session.scan is None
    assert not session.undo()
    assert len(store.records()) == 1
    assert session.answering.pending_work() is None
