"""While a person looks, the other slices are encoded; a prompt goes first."""

import threading
from dataclasses import replace

import pytest

from napari_fedsam.sam.embedding_store import EmbeddingStore

pytestmark = pytest.mark.window

WAIT_MS = 60_000


@pytest.fixture
def store(ball, widget, tmp_path) -> EmbeddingStore:
    store = EmbeddingStore(tmp_path / "encoded")
    widget.session.use_model(replace(widget.session.model, store=store))
    return store


def test_the_whole_volume_is_encoded_and_kept(store, ball, hands, widget, qtbot, tmp_path) -> None:
    answering = widget.session.answering
    qtbot.waitUntil(
        lambda: answering.work_ahead() is None and not widget._ahead.running, timeout=WAIT_MS
    )
    assert len(list((tmp_path / "encoded").glob("*.zarr"))) == len(ball.pixels)
    for _ in range(3):
        widget.next_slice()
        assert answering.is_encoded


def test_a_click_is_answered_before_the_rest_is_encoded(store, hands, widget) -> None:
    hands.click(34, 30)
    assert widget.session.preview is not None
    assert widget.session.answering.work_ahead() is not None


def test_what_shares_the_thread_waits_while_a_prompt_is_answered(widget, qtbot) -> None:
    order, started = [], threading.Event()

    def job(between):
        started.set()
        between()
        order.append("job")

    widget._inference.state_changed.emit("predicting")
    widget._ahead.share(job, lambda _: order.append("done"), order.append)
    assert started.wait(WAIT_MS / 1000)
    order.append("answered")
    widget._inference.state_changed.emit("")
    qtbot.waitUntil(lambda: "done" in order, timeout=WAIT_MS)
    assert order == ["answered", "job", "done"]


def test_closing_the_widget_ends_it(store, widget, qtbot) -> None:
    widget.shut_down()
    assert not widget._ahead._free.is_set() or widget._ahead._background.closed
    running = widget._ahead.running
    widget.session.answering.work_wanted.emit()
    assert widget._ahead.running == running
