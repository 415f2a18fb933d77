"""Whatever is done, undoing all of it gives back the start, and redoing it the end."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_fedsam.annotation.label_edit import LabelEdit
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.cases.store import CaseStore

steps = st.lists(
    st.one_of(
        st.tuples(st.just("click"), st.integers(0, 29), st.integers(0, 19)),
        st.tuples(st.just("box"), st.integers(0, 20), st.integers(0, 10)),
        st.tuples(st.sampled_from(["scribble", "lasso"]), st.integers(0, 20), st.integers(0, 9)),
        st.tuples(st.just("move"), st.integers(-2, 2), st.just(0)),
        st.tuples(st.just("brush"), st.integers(0, 25), st.integers(0, 2)),
        st.tuples(st.just("touch up"), st.integers(0, 25), st.integers(0, 15)),
        st.tuples(
            st.sampled_from(["accept", "absent", "clear", "undo", "redo"]), st.just(0), st.just(0)
        ),
    ),
    max_size=12,
)


def do(session, name, a, b):
    """One step of a person; what cannot be done now is left."""
    if name == "click":
        session.add_click(a, b)
    elif name == "box":
        session.add_box(a, b, a + 5, b + 5)
    elif name == "scribble":
        session.add_scribble(((a, b), (a + 6, b + 3)))
    elif name == "lasso":
        session.add_lasso(((a, b), (a + 8, b), (a + 8, b + 8)))
    elif name == "move":
        session.view.next_slice(a)
    elif name == "brush":
        brush(session, a, value=b)
    elif name == "touch up":
        added = np.zeros(session.view.slice.shape(session.view.shape), np.bool_)
        added[b : b + 3, a : a + 3] = True
        session.paint_answer(added, np.roll(added, 5, axis=1))
    elif name == "absent":
        session.accept_absent()
    elif name == "accept" and session.preview is not None and session.preview.mask.any():
        session.accept()
    elif name in ("clear", "undo", "redo"):
        getattr(session, name)()


def brush(session, column, *, value):
    """Paint three columns of the slice, as napari's brush does: first the pixels, then the news."""
    painted = np.zeros(session.view.slice.shape(session.view.shape), np.bool_)
    painted[2:6, column : column + 3] = True
    indices = session.view.slice.volume_indices(painted)
    before = session.segmentation[indices]
    session.segmentation[indices] = value
    changed = before != value
    where = tuple(axis[changed] for axis in indices)
    session.painted(LabelEdit.of(where, before[changed], session.segmentation[where]))


def state_of(session, store):
    cases = sorted(
        (record.slice_index, record.structure.value, store.load(record.id).mask.tobytes())
        for record in store.records()
    )
    return session.segmentation.tobytes(), dict(session.asks), cases


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps)
def test_undoing_everything_gives_back_the_start(scan, model, sequence):
    with tempfile.TemporaryDirectory() as folder:
        store = CaseStore(Path(folder) / "cases")
        session = AnnotationSession(store)
        session.use_model(model)
        session.open_scan(scan)
        for name, a, b in sequence:
            do(session, name, a, b)
            session.answering.run_pending()
        end = state_of(session, store)
        undone = 0
        while session.undo():
            undone += 1
        assert not session.segmentation.any()
        assert store.records() == []
        assert session.asks == {}
        for _ in range(undone):
            assert session.redo()
        assert state_of(session, store) == end
