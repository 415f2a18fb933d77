"""napari's strokes as edits: real Labels layers, no window."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from napari.layers import Labels

from napari_fedsam.widgets.brush_strokes import edit_of_stroke


def layer_with(edits):
    layer = Labels(np.zeros((2, 20, 20), np.uint8))
    layer.brush_size = 4

    def painted(event):
        edits.append(edit_of_stroke(event.value, layer.data))

    layer.events.paint.connect(painted)
    return layer


def paint(layer, points, value):
    with layer.block_history():
        for y, x in points:
            layer.paint((0, y, x), value)


@given(
    st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), min_size=1, max_size=4),
            st.integers(0, 2),
        ),
        max_size=5,
    )
)
def test_taking_all_strokes_back_leaves_nothing(strokes):
    edits = []
    layer = layer_with(edits)
    for points, value in strokes:
        paint(layer, points, value)
    end = layer.data.copy()
    data = layer.data.copy()
    for edit in reversed(edits):
        data[edit.indices] = edit.before
    assert not data.any()
    for edit in edits:
        data[edit.indices] = edit.after
    assert np.array_equal(data, end)


@pytest.mark.parametrize("tool", ["data_setitem", "fill"])
def test_what_napari_tells_before_it_is_done_is_whole(tool):
    edits = []
    layer = layer_with(edits)
    if tool == "fill":
        layer.fill((0, 5, 5), 3)
    else:
        layer.data_setitem((np.array([0, 1]), np.array([2, 3]), np.array([4, 5])), 7)
    (edit,) = edits
    assert len(edit) == np.count_nonzero(layer.data)
    assert (edit.after == layer.data.max()).all()
