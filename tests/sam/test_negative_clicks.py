"""What is left of a mask that was clicked away in parts."""

import numpy as np

from napari_fedsam.sam import Prompts
from napari_fedsam.sam.negative_clicks import anchored_clicks, unclicked_components


def test_components_with_a_negative_click_go() -> None:
    mask = np.zeros((10, 30), np.bool_)
    mask[2:5, 2:5], mask[2:5, 10:15] = True, True
    kept = unclicked_components(mask, Prompts(np.array([[3, 3], [12, 3]]), np.array([True, False])))
    assert kept[3, 3]
    assert kept.sum() == 9
    beside = Prompts(np.array([[28, 9]]), np.array([False]))
    assert unclicked_components(mask, beside) is mask
    everywhere = Prompts(np.array([[3, 3], [12, 3]]), np.array([False, False]))
    assert unclicked_components(mask, everywhere) is mask


def test_specks_do_not_stay_alone_when_the_object_itself_is_clicked() -> None:
    mask = np.zeros((20, 30), np.bool_)
    mask[2:18, 2:18], mask[4:6, 24:26] = True, True
    on_the_edge = Prompts(np.array([[3, 3]]), np.array([False]))
    assert unclicked_components(mask, on_the_edge) is mask


def test_the_anchor_lies_deep_in_the_mask_and_far_from_the_click() -> None:
    mask = np.zeros((20, 40), np.bool_)
    mask[2:17, 2:38] = True
    negative = Prompts(np.array([[10, 9]]), np.array([False]), (2, 2, 37, 16))
    anchored = anchored_clicks(mask, negative)
    assert anchored is not None
    assert anchored.labels.tolist() == [True, False]
    x, y = anchored.points[0]
    assert mask[int(y), int(x)]
    assert x > 17
    assert anchored.points[1].tolist() == [10, 9]
    assert anchored.box == negative.box


def test_nothing_is_anchored_where_nothing_is_left() -> None:
    mask = np.zeros((20, 40), np.bool_)
    mask[9, 10] = True
    assert anchored_clicks(mask, Prompts(np.array([[10, 9]]), np.array([False]))) is None
