"""Whatever is done, undoing all of it gives back the start."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.cases.store import CaseStore

steps = st.lists(
    st.one_of(
        st.tuples(st.just("click"), st.integers(0, 29), st.integers(0, 19)),
        st.tuples(st.just("box"), st.integers(0, 20), st.integers(0, 10)),
        st.tuples(st.just("move"), st.integers(-2, 2), st.just(0)),
        st.tuples(st.sampled_from(["accept", "absent", "clear", "undo"]), st.just(0), st.just(0)),
    ),
    max_size=10,
)


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
            if name == "click":
                session.add_click(a, b)
            elif name == "box":
                session.add_box(a, b, a + 5, b + 5)
            elif name == "move":
                session.view.next_slice(a)
            elif name == "absent":
                session.accept_absent()
            elif name == "accept" and not session.ask.is_empty:
                session.accept()
            elif name == "clear":
                session.clear()
            elif name == "undo":
                session.undo()
            session.answering.run_pending()
            shown = {record.slice_index for record in store.records()}
            assert set(np.unique(np.nonzero(session.segmentation)[0])) <= shown
        while session.undo():
            pass
        assert not session.segmentation.any()
        assert store.records() == []
        assert session.ask.is_empty
