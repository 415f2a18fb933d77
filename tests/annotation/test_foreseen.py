"""The click that a resting cursor is about to give is answered before it is given."""

from dataclasses import replace

import pytest

from napari_fedsam.annotation.ask import Ask
from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.window import Window


@pytest.fixture
def expect(session):
    def expect(x=8.0, y=9.0, *, positive=True):
        session.answering.expect_click(x, y, positive=positive)
        session.answering.run_pending()

    return expect


def test_the_click_finds_its_answer_there(session, expect, predictor):
    expect()
    assert session.preview is None
    asked = len(predictor.asked)
    session.add_click(8.0, 9.0)
    assert session.answering.is_current
    assert session.preview.mask[9, 8]
    session.answering.run_pending()
    assert len(predictor.asked) == asked == 1


def test_a_click_elsewhere_is_answered_anew(session, expect, predictor):
    expect()
    session.add_click(20, 12)
    assert not session.answering.is_current
    session.answering.run_pending()
    assert session.preview.mask[12, 20]
    assert not session.preview.mask[9, 8]


def test_a_click_while_its_answer_is_computed_takes_that(session, predictor):
    session.answering.expect_click(8.0, 9.0, positive=True)
    work = session.answering.pending_work()
    session.add_click(8.0, 9.0)
    session.answering.finish(work, work.run())
    assert session.answering.is_current
    assert session.answering.pending_work() is None


def test_it_corrects_the_answer_that_is_there(session, expect):
    session.add_click(5, 5)
    session.answering.run_pending()
    expect(20, 12)
    session.add_click(20, 12)
    assert session.answering.is_current
    assert session.preview.mask[5, 5]
    assert session.preview.mask[12, 20]


def test_a_negative_click_is_not_answered_by_a_positive_one(session, expect):
    session.add_box(2, 2, 12, 12)
    session.answering.run_pending()
    expect(8, 9, positive=True)
    session.add_click(8, 9, positive=False)
    assert not session.answering.is_current
    session.undo()
    expect(8, 9, positive=False)
    session.add_click(8, 9, positive=False)
    assert session.answering.is_current
    assert not session.preview.mask[9, 8]


def test_prompts_and_the_shown_cursor_go_first(session):
    session.answering.expect_click(20, 12, positive=True)
    session.add_click(5, 5)
    assert session.answering.pending_work().ask == session.ask
    session.answering.run_pending()
    session.answering.hover.begin()
    session.answering.point_at((25, 15))
    assert session.answering.pending_work().ask == session.ask.with_click(25, 15)


def test_nothing_is_encoded_for_it(session):
    session.view.next_slice()
    session.answering.expect_click(8, 9, positive=True)
    assert session.answering.pending_work(ahead=False) is None


def test_nobody_clicks_twice_at_one_place(session, expect, predictor):
    session.add_click(8, 9)
    session.answering.run_pending()
    asked = len(predictor.asked)
    expect(8.4, 9)
    assert len(predictor.asked) == asked


def test_once_it_is_expected_no_more_nothing_is_computed(session):
    session.answering.expect_click(8, 9, positive=True)
    session.answering.foreseen.expect_nothing()
    assert session.answering.pending_work() is None


@pytest.mark.parametrize("change", ["slice", "structure", "window", "model", "scan"])
def test_elsewhere_it_is_no_answer(session, expect, model, scan, change):
    expect()
    if change == "slice":
        session.view.next_slice()
    elif change == "structure":
        session.view.add_structure("other")
    elif change == "window":
        session.view.set_window(Window(1, 2))
    elif change == "model":
        session.use_model(replace(model, name="Another"))
    else:
        session.open_scan(scan)
    session.add_click(8.0, 9.0)
    assert not session.answering.is_current


def test_what_fails_is_told_only_to_who_clicks(session, expect, predictor, monkeypatch):
    told = []
    session.failed.connect(told.append)
    expect(8, 9, positive=False)
    assert not told
    session.add_click(8, 9, positive=False)
    session.answering.run_pending()
    (error,) = told
    assert isinstance(error, FedSamError)
    assert "Only negative clicks" in str(error)


def test_an_expected_click_is_no_prompt(session, expect):
    expect()
    assert session.ask == Ask()
    assert not session.undo()
