"""What a point under the cursor would give is answered, shown, and never kept."""

from dataclasses import replace

import pytest

from napari_fedsam.annotation.ask import Ask, Click
from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.window import Window


@pytest.fixture
def hover(session):
    hover = session.answering.hover
    hover.begin()
    return hover


def test_the_cursor_is_answered_as_a_positive_point_and_is_no_prompt(session, hover, predictor):
    session.answering.point_at((8, 9))
    session.answering.run_pending()
    assert hover.preview.mask[9, 8]
    assert hover.preview.ask == Ask().with_click(8, 9)
    assert session.ask.is_empty
    assert session.preview is None
    assert not session.undo()


def test_the_end_takes_the_answer_away_and_says_so(session, hover):
    session.answering.point_at((8, 9))
    session.answering.run_pending()
    told = []
    hover.changed.connect(lambda: told.append(hover.preview))
    hover.end()
    assert told == [None]
    session.answering.point_at((9, 9))
    assert session.answering.pending_work() is None


def test_without_a_wish_the_cursor_is_not_answered(session):
    wanted = []
    session.answering.work_wanted.connect(lambda: wanted.append(1))
    session.answering.point_at((8, 9))
    assert session.answering.pending_work() is None
    assert not wanted


def test_of_many_positions_the_newest_alone_is_answered(session, hover, predictor):
    session.answering.point_at((3, 3))
    work = session.answering.pending_work()
    for x in range(4, 20):
        session.answering.point_at((x, 9))
    session.answering.finish(work, work.run())
    # The one that lags behind is better than nothing.
    assert hover.preview.ask.clicks == (Click(3, 3),)
    session.answering.run_pending()
    assert hover.preview.ask.clicks == (Click(19, 9),)
    assert len(predictor.asked) == 2


def test_it_shows_what_the_point_would_add_to_the_prompts(session, hover):
    session.add_click(5, 5)
    session.answering.run_pending()
    session.answering.point_at((20, 12))
    session.answering.run_pending()
    assert hover.preview.mask[12, 20]
    assert hover.preview.mask[5, 5]
    assert not session.preview.mask[12, 20]


def test_prompts_are_answered_before_the_cursor(session, hover):
    session.answering.point_at((20, 12))
    session.add_click(5, 5)
    assert session.answering.pending_work().ask == session.ask


def test_a_click_that_was_just_given_is_not_shown_twice(session, hover):
    session.answering.point_at((8.2, 9))
    session.add_click(8, 9)
    session.answering.run_pending()
    assert hover.preview is None
    assert session.preview.mask[9, 8]


def test_an_answer_to_other_prompts_is_not_shown(session, hover):
    session.answering.point_at((20, 12))
    session.answering.run_pending()
    session.add_click(5, 5)
    assert hover.preview is None


def test_accepting_does_not_take_what_is_under_the_cursor(session, hover, store):
    session.add_click(5, 5)
    session.answering.run_pending()
    session.answering.point_at((20, 12))
    session.answering.run_pending()
    session.accept()
    mask = session.view.slice.pixels(session.segmentation)
    assert mask[5, 5]
    assert not mask[12, 20]


@pytest.mark.parametrize("change", ["slice", "structure", "window", "model", "scan"])
def test_what_was_shown_elsewhere_is_dropped(session, hover, model, scan, change):
    session.answering.point_at((8, 9))
    session.answering.run_pending()
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
    assert hover.preview is None
    session.answering.run_pending()
    assert (hover.preview is None) == (change == "scan")


def test_off_the_slice_nothing_is_shown(session, hover):
    session.answering.point_at((8, 9))
    session.answering.run_pending()
    session.answering.point_at(None)
    assert hover.preview is None
    assert session.answering.pending_work() is None


def test_a_failure_is_told_once_and_ends_it(session, hover, predictor, monkeypatch):
    def fail(*_args, **_options):
        raise FedSamError("no memory")

    monkeypatch.setattr(predictor, "predict", fail)
    told = []
    session.failed.connect(told.append)
    for x in range(3):
        session.answering.point_at((x, 9))
        session.answering.run_pending()
    assert [str(error) for error in told] == ["no memory"]
    monkeypatch.undo()
    hover.begin()
    session.answering.point_at((8, 9))
    session.answering.run_pending()
    assert hover.preview is not None
