"""Scribbles, lassos, masks and paint: what they ask, and what no answer may contradict."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from napari_fedsam.annotation.accepted_mask import accepted_mask
from napari_fedsam.annotation.answer import answer
from napari_fedsam.annotation.ask import Ask, Click, Painting, Scribble
from napari_fedsam.annotation.bit_mask import BitMask
from napari_fedsam.annotation.drawing import pixels_of_line, pixels_within, points_along
from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.label_edit import LabelEdit
from napari_fedsam.annotation.slices import SliceKey

SHAPE = (20, 30)
masks = arrays(np.bool_, SHAPE)
few = arrays(np.uint8, (2, 3, 4), elements=st.integers(0, 2))
xy = st.tuples(st.floats(0, 29), st.floats(0, 19))
paths = st.lists(xy, min_size=1, max_size=5).map(tuple)
corrections = st.one_of(
    st.builds(lambda at, positive: Click(*at, positive), xy, st.booleans()),
    st.builds(Scribble, paths, st.booleans()),
    st.builds(Painting.of, masks, masks),
)
asks = st.builds(
    Ask,
    boxes=st.lists(st.just((1.0, 2.0, 9.0, 8.0)), max_size=2).map(tuple),
    lassos=st.lists(paths, max_size=2).map(tuple),
    mask=st.none() | masks.map(BitMask.of),
    proposal=st.booleans(),
    corrections=st.lists(corrections, max_size=4).map(tuple),
)


def block(rows, columns):
    mask = np.zeros(SHAPE, np.bool_)
    mask[rows, columns] = True
    return mask


@pytest.fixture
def embedding(predictor):
    return predictor.encode(np.zeros(SHAPE, np.uint8))


@given(masks)
def test_a_packed_mask_is_the_mask(mask):
    packed = BitMask.of(mask)
    assert np.array_equal(packed.unpacked(), mask)
    assert BitMask.from_text(packed.shape, packed.text) == packed


@pytest.mark.parametrize("text", ["", "no base 64!", "AAAA"])
def test_a_damaged_mask_is_refused(text):
    with pytest.raises(AnnotationError, match="damaged"):
        BitMask.from_text(SHAPE, text)


@given(asks)
def test_an_ask_comes_back_from_its_json(ask):
    assert Ask.from_json(ask.as_json()) == ask


@given(asks, st.lists(xy, max_size=3))
def test_moving_clicks_leaves_everything_else_in_its_order(ask, places):
    clicks = tuple(Click(x, y) for x, y in places)
    changed = ask.with_clicks(clicks)
    assert changed.clicks == clicks
    others = [each for each in ask.corrections if not isinstance(each, Click)]
    assert [each for each in changed.corrections if not isinstance(each, Click)] == others


@given(paths, st.integers(1, 9))
def test_points_lie_along_a_path_from_end_to_end(path, count):
    points = points_along(path, count)
    assert 1 <= len(points) <= count
    assert points[0] == pytest.approx(path[0])
    if len(points) > 1:
        assert points[-1] == pytest.approx(path[-1])


def test_lines_and_outlines_as_pixels():
    assert pixels_of_line(((2, 3), (6, 3)), SHAPE).sum() == 5
    assert pixels_of_line(((2, 3),), SHAPE)[3, 2]
    inside = pixels_within(((2, 2), (8, 2), (8, 6), (2, 6)), SHAPE)
    assert np.array_equal(inside, block(slice(2, 7), slice(2, 9)))


def test_a_scribble_is_points_and_certain(predictor, embedding):
    ask = Ask(boxes=((1, 1, 25, 15),)).with_correction(Scribble(((3, 5), (20, 5)), positive=False))
    mask = answer(predictor, embedding, ask).mask
    assert not mask[5, 3:21].any()
    prompts = predictor.asked[-1][0]
    assert len(prompts.points) == 8
    assert not prompts.labels.any()


def test_a_lasso_asks_by_its_box_and_keeps_within(predictor, embedding):
    ask = Ask().with_lasso(((2, 2), (12, 2), (2, 12)))
    mask = answer(predictor, embedding, ask).mask
    assert predictor.asked[0][0].box == (2, 2, 12, 12)
    assert mask[3, 3]
    assert not mask[11, 11]


def test_each_component_of_a_mask_is_an_object(predictor, embedding):
    rough = block(slice(1, 5), slice(1, 5)) | block(slice(10, 15), slice(20, 25))
    ask = Ask(mask=BitMask.of(rough)).with_click(26, 12)
    mask = answer(predictor, embedding, ask).mask
    assert mask[2, 2]
    assert mask[12, 26]
    asked = [prompts.mask.sum() for prompts, _, _ in predictor.asked]
    assert asked == [16, 25, 25]


def test_paint_counts_at_once_and_in_every_later_answer(predictor, embedding):
    added, removed = block(slice(15, 18), slice(2, 5)), block(slice(4, 6), slice(4, 6))
    ask = Ask(boxes=((1, 1, 9, 9),)).with_correction(Painting.of(added, removed))
    painted = answer(predictor, embedding, ask)
    assert painted.mask[16, 3]
    assert not painted.mask[4, 4]
    assert len(predictor.asked) == 1
    later = answer(predictor, embedding, ask.with_click(5, 5), earlier=(ask, painted))
    assert np.array_equal(predictor.asked[-1][2].mask, painted.mask)
    assert later.mask[16, 3]
    assert not later.mask[4, 4] or later.mask[5, 5]


def test_a_later_click_overrules_what_was_painted(predictor, embedding):
    added = block(slice(15, 18), slice(2, 5))
    ask = Ask(boxes=((1, 1, 9, 9),)).with_correction(Painting.of(added, ~added & False))
    mask = answer(predictor, embedding, ask.with_click(3, 16, positive=False)).mask
    assert not mask[16, 3]


# --- accepting on top of what is there


def test_other_objects_and_pixels_outside_the_prompted_region_stay():
    present = block(slice(2, 6), slice(2, 20)) | block(slice(12, 15), slice(3, 6))
    found = block(slice(2, 6), slice(2, 8))
    result = accepted_mask(present, found, Ask().with_click(4, 4))
    assert np.array_equal(result, present)


def test_within_the_prompted_region_the_answer_replaces():
    present = block(slice(2, 10), slice(2, 10))
    found = block(slice(4, 6), slice(4, 6))
    result = accepted_mask(present, found, Ask(boxes=((2, 2, 9, 9),)))
    assert np.array_equal(result, found)


def test_a_negative_prompt_removes_the_object_that_it_strikes():
    present = block(slice(2, 5), slice(2, 5)) | block(slice(12, 15), slice(12, 15))
    found = block(slice(2, 5), slice(2, 5))
    ask = Ask().with_click(3, 3).with_click(13, 13, positive=False)
    assert np.array_equal(accepted_mask(present, found, ask), found)


@pytest.mark.parametrize(
    "negative",
    [
        Click(18, 9, positive=False),
        # No point of it that the model gets lies on the leak.
        Scribble(((18, 0), (18, 19)), positive=False),
    ],
)
def test_a_leak_that_a_negative_prompt_strikes_goes_with_all_that_lies_beyond(negative):
    leak, found = block(9, slice(4, 26)), block(9, slice(4, 14))
    other = block(slice(12, 15), slice(2, 14))
    ask = Ask().with_click(6, 9).with_correction(negative)
    assert np.array_equal(accepted_mask(leak | other, found, ask), found | other)


@given(masks, masks, xy)
def test_of_a_struck_object_only_the_answer_stays(present, found, at):
    x, y = at
    objects, _ = ndimage.label(present)
    struck = (objects == objects[round(y), round(x)]) & present
    result = accepted_mask(present, found, Ask().with_click(x, y, positive=False))
    assert np.array_equal(result[struck], found[struck])


def test_negative_prompts_and_a_mask_prompt_belong_to_the_prompted_region():
    present, found = block(5, slice(2, 20)), block(5, slice(2, 8))
    ask = Ask(boxes=((2, 4, 7, 6),))
    clicked = accepted_mask(present, found, ask.with_click(13, 8, positive=False))
    assert np.array_equal(clicked, found | block(5, slice(14, 20)))
    refined = accepted_mask(present, found, Ask(mask=BitMask.of(present)))
    assert np.array_equal(refined, found)


def test_what_was_erased_of_another_object_is_gone_and_all_else_stays():
    long, other = block(5, slice(2, 20)), block(slice(10, 14), slice(24, 28))
    found, erased = block(5, slice(2, 8)), block(slice(10, 14), slice(26, 28))
    ask = Ask().with_click(4, 5).with_correction(Painting.of(erased & False, erased))
    result = accepted_mask(long | other, found, ask)
    assert np.array_equal(result, long | (other & ~erased))


def test_no_crumbs_stay_beside_what_was_erased_of_the_object_itself():
    present, found = block(slice(4, 8), slice(2, 12)), block(slice(4, 8), slice(2, 8))
    erased = block(slice(5, 7), slice(8, 12))
    ask = Ask().with_click(4, 5).with_correction(Painting.of(erased & False, erased))
    assert np.array_equal(accepted_mask(present, found, ask), found)


@given(masks, masks)
def test_accepting_never_loses_the_answer_nor_what_is_outside(present, found):
    result = accepted_mask(present, found, Ask())
    assert (result | ~found).all()
    rows, columns = np.nonzero(found)
    if len(rows):
        outside = present.copy()
        outside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = False
        assert (result | ~outside).all()


def propagated(session, mask):
    """Put a mask on the slice on screen, as propagation does."""
    session.put_masks(0, 1, {session.view.slice.index: mask})


def kept(session):
    """Accept, and return what the case on disk holds."""
    session.answering.run_pending()
    session.accept()
    (record,) = session.store.records()
    mask = session.store.load(record.id).mask
    assert np.array_equal(mask, session.view.slice.pixels(session.segmentation) == 1)
    return mask


def test_an_accepted_leak_that_a_click_cuts_off_is_in_no_case(session):
    leak, other = block(slice(6, 12), slice(4, 24)), block(slice(15, 18), slice(2, 28))
    propagated(session, leak | other)
    session.accept()
    session.add_click(6, 9)
    session.add_click(18, 9, positive=False)
    session.answering.run_pending()
    answered = session.preview.mask
    assert answered[leak].any()
    assert np.array_equal(kept(session), answered | other)


def test_a_rim_that_was_erased_from_the_answer_is_in_no_case(session):
    propagated(session, block(slice(6, 12), slice(4, 24)))
    session.add_click(8, 9)
    session.answering.run_pending()
    rim = session.preview.mask & block(slice(0, 20), slice(18, 30))
    session.paint_answer(rim & False, rim)
    mask = kept(session)
    assert rim.any()
    assert not mask[rim].any()


def test_erasing_another_object_in_the_segmentation_counts_beside_prompts(session):
    propagated(session, block(slice(2, 6), slice(20, 28)))
    session.accept()
    session.add_click(6, 14)
    session.answering.run_pending()
    answered = session.preview.mask
    indices = session.view.slice.volume_indices(block(slice(2, 6), slice(24, 28)))
    edit = LabelEdit.of(indices, np.ones(16, np.uint8), np.zeros(16, np.uint8))
    # As napari's brush does: first the pixels, then the news.
    session.segmentation[indices] = 0
    session.painted(edit)
    assert np.array_equal(kept(session), answered | block(slice(2, 6), slice(20, 24)))


# --- edits


@given(few, few, few)
def test_an_edit_spares_what_was_changed_since_it_was_made(before, after, now):
    changed = np.nonzero(before != after)
    edit = LabelEdit.of(changed, before[changed], after[changed]).sparing_changes_in(now)
    work = now.copy()
    work[edit.indices] = edit.after
    assert np.array_equal(work, np.where(now == before, after, now))
    back = edit.swapped()
    work[back.indices] = back.after
    assert np.array_equal(work, now)


@given(arrays(np.uint8, (3, 6, 7)), arrays(np.uint8, (3, 6, 7)))
def test_an_edit_and_its_reverse(before, after):
    changed = np.nonzero(before != after)
    edit = LabelEdit.of(changed, before[changed], after[changed])
    work = before.copy()
    work[edit.indices] = edit.after
    assert np.array_equal(work, after)
    back = edit.swapped()
    work[back.indices] = back.after
    assert np.array_equal(work, before)


def test_an_edit_of_a_large_mask_is_small():
    volume = np.zeros((4, 512, 512), np.uint8)
    rows, columns = np.mgrid[:512, :512]
    disc = np.hypot(rows - 256, columns - 256) < 150
    edit = LabelEdit.giving(volume, SliceKey(0, 1), 3, disc)
    assert len(edit) == disc.sum()
    assert edit.nbytes < len(edit) / 20
