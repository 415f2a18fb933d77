"""An answer for one scan, or by one model, is never taken for another's."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.structures import FIRST_STRUCTURE
from napari_fedsam.annotation.work import PredictWork
from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.sam.prediction import Prediction

WIDTH, HEIGHT = 30, 20
LEFT, RIGHT = slice(2, 9), slice(15, 26)


class BrightPredictor:
    """Answers everything with what is bright, which tells the image that an answer is of."""

    model = SimpleNamespace(prompt_kinds=frozenset({"none", "box"}))

    def encode(self, image, between=None):
        bright = np.atleast_3d(image)[..., 0] > 127
        return SimpleNamespace(image_shape=bright.shape, bright=bright)

    def predict(self, embedding, _prompts, *, structure=None, previous=None):
        del structure, previous
        logits = np.where(embedding.bright, 1, -1).astype(np.float32)
        return Prediction(embedding.bright, 0.9, logits)


def picture(bright: slice) -> Scan:
    pixels = np.zeros((1, HEIGHT, WIDTH, 3), np.uint8)
    pixels[:, 4:12, bright] = 250
    return Scan(
        pixels, Geometry.identity((WIDTH, HEIGHT)), "picture", Path("a.png"), is_anatomical=False
    )


def ct(bright: slice) -> Scan:
    pixels = np.full((5, HEIGHT, WIDTH), -100, np.int16)
    pixels[:, 4:12, bright] = 200
    geometry = Geometry.identity((WIDTH, HEIGHT, 5))
    return Scan(pixels, geometry, "ct", Path("a.nii"), modality="CT")


@pytest.fixture(params=[picture, ct])
def scans(request) -> tuple[Scan, Scan]:
    return request.param(LEFT), request.param(RIGHT)


@pytest.fixture
def model() -> ModelInUse:
    return ModelInUse(
        BrightPredictor(), "Bright", round=3, version=2, structures=(FIRST_STRUCTURE,)
    )


@pytest.fixture
def session(store, model) -> AnnotationSession:
    session = AnnotationSession(store)
    session.use_model(model)
    return session


@pytest.fixture
def proposing(session) -> AnnotationSession:
    session.auto_propose = True
    return session


def bright(scan: Scan) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[4:12, LEFT if np.atleast_3d(scan.pixels[0])[5, LEFT.start, 0] > 127 else RIGHT] = True
    return mask


def encoded(session: AnnotationSession) -> None:
    """Encode the slice on screen and compute nothing else."""
    work = session.answering.pending_work()
    session.answering.finish(work, work.run())
    assert session.answering.is_encoded


def answering(session: AnnotationSession) -> PredictWork:
    """What is computed for the scan on screen, once its slice is encoded."""
    if not session.answering.is_encoded:
        encoded(session)
    work = session.answering.pending_work()
    assert isinstance(work, PredictWork)
    return work


def test_a_proposal_is_not_shown_on_the_scan_that_is_opened_next(proposing, scans):
    first, second = scans
    proposing.open_scan(first)
    proposing.answering.run_pending()
    assert np.array_equal(proposing.preview.mask, bright(first))
    before = proposing.view.place, proposing.view.window, proposing.ask
    told = []
    proposing.answering.preview_changed.connect(lambda: told.append(proposing.preview))
    proposing.open_scan(second)
    # Nothing but the scan is another.
    assert before == (proposing.view.place, proposing.view.window, proposing.ask)
    assert proposing.preview is None
    assert told == [None]
    assert not proposing.answering.is_current
    proposing.answering.run_pending()
    assert proposing.answering.is_current
    assert np.array_equal(proposing.preview.mask, bright(second))


def test_while_a_scan_is_being_opened_the_answer_before_is_not_current(proposing, scans):
    first, second = scans
    proposing.open_scan(first)
    proposing.answering.run_pending()
    found = []
    proposing.view.scan_changed.connect(lambda: found.append(proposing.answering.is_current))
    proposing.open_scan(second)
    assert found == [False]


def test_a_case_never_holds_the_mask_of_another_scan(proposing, store, scans):
    first, second = scans
    proposing.open_scan(first)
    proposing.answering.run_pending()
    proposing.open_scan(second)
    with pytest.raises(AnnotationError, match="still being computed"):
        proposing.accept()
    proposing.answering.run_pending()
    proposing.accept()
    (record,) = store.records()
    case = store.load(record.id)
    assert np.array_equal(case.mask, bright(second))
    assert np.array_equal(np.atleast_3d(case.image)[..., 0] > 127, bright(second))


def test_a_proposal_that_comes_once_another_scan_is_open_is_dropped(proposing, scans):
    first, second = scans
    proposing.open_scan(first)
    work = answering(proposing)
    proposing.open_scan(second)
    proposing.answering.finish(work, work.run())
    assert proposing.preview is None
    proposing.answering.run_pending()
    assert np.array_equal(proposing.preview.mask, bright(second))


def test_back_on_a_scan_an_answer_for_the_one_between_is_dropped(proposing, scans):
    first, second = scans
    proposing.open_scan(first)
    proposing.answering.run_pending()
    proposing.open_scan(second)
    work = answering(proposing)
    proposing.open_scan(first)
    proposing.answering.finish(work, work.run())
    assert proposing.preview is None
    proposing.answering.run_pending()
    assert np.array_equal(proposing.preview.mask, bright(first))


def test_what_was_asked_when_a_scan_was_open_before_is_asked_anew(proposing, scans):
    first, second = scans
    proposing.open_scan(first)
    work = answering(proposing)
    proposing.open_scan(second)
    proposing.open_scan(first)
    proposing.answering.finish(work, work.run())
    assert proposing.preview is None


def test_an_undone_step_is_answered_for_the_scan_on_screen(session, scans):
    first, second = scans
    session.open_scan(first)
    session.add_click(5, 5)
    work = answering(session)
    session.open_scan(second)
    session.add_click(5, 5)
    session.clear()
    session.undo()
    session.answering.finish(work, work.run())
    assert session.preview is None
    session.answering.run_pending()
    assert np.array_equal(session.preview.mask, bright(second))


def test_a_click_is_not_answered_by_what_was_expected_on_another_scan(session, scans):
    first, second = scans
    session.open_scan(first)
    session.answering.expect_click(5, 5, positive=True)
    work = answering(session)
    session.open_scan(second)
    encoded(session)
    session.answering.expect_click(5, 5, positive=True)
    session.answering.finish(work, work.run())
    session.add_click(5, 5)
    assert not session.answering.is_current


def test_under_the_cursor_nothing_of_another_scan_is_shown(session, scans):
    first, second = scans
    session.answering.hover.begin()
    session.open_scan(first)
    session.answering.point_at((5, 5))
    work = answering(session)
    session.open_scan(second)
    session.answering.point_at((5, 5))
    session.answering.finish(work, work.run())
    assert session.answering.hover.preview is None
    session.answering.run_pending()
    assert np.array_equal(session.answering.hover.preview.mask, bright(second))


def test_what_fails_for_a_scan_that_was_left_is_tried_on_the_next(proposing, scans):
    first, second = scans
    proposing.open_scan(first)
    work = answering(proposing)
    told = []
    proposing.failed.connect(told.append)
    proposing.open_scan(second)
    proposing.answering.refuse(work, FedSamError("no memory"))
    proposing.answering.run_pending()
    assert not told
    assert np.array_equal(proposing.preview.mask, bright(second))


def test_what_was_refused_on_a_scan_is_not_refused_while_the_next_is_being_opened(session, scans):
    first, second = scans
    session.open_scan(first)
    session.set_ask(Ask(proposal=True))
    session.answering.refuse(answering(session), FedSamError("no memory"))
    assert session.answering.pending_work() is None
    session.view.open(second)
    encoded(session)
    assert answering(session).ask == session.ask


def test_what_fails_in_a_model_that_is_gone_is_tried_with_the_next(proposing, model, scans):
    proposing.open_scan(scans[0])
    work = answering(proposing)
    told = []
    proposing.failed.connect(told.append)
    proposing.use_model(replace(model, version=3))
    proposing.answering.refuse(work, FedSamError("no memory"))
    proposing.answering.run_pending()
    assert not told
    assert proposing.answering.is_current


def test_clicks_do_not_continue_the_answer_of_another_scan(session, scans):
    first, second = scans
    session.open_scan(first)
    session.add_click(5, 5)
    session.answering.run_pending()
    session.view.open(second)
    session.add_click(6, 6)
    assert answering(session).earlier is None


def test_what_was_answered_ahead_and_under_the_cursor_ends_with_its_scan(session, scans):
    first, second = scans
    session.open_scan(first)
    session.answering.expect_click(5, 5, positive=True)
    session.answering.run_pending()
    session.answering.hover.begin()
    session.answering.point_at((9, 9))
    session.answering.run_pending()
    assert session.answering.foreseen.answer is not None
    assert session.answering.hover.preview is not None
    session.view.open(second)
    assert session.answering.foreseen.answer is None
    assert session.answering.hover.preview is None
