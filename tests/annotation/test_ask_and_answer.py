import numpy as np
import pytest

from napari_fedsam.annotation.answer import answer
from napari_fedsam.annotation.ask import Ask, Click
from napari_fedsam.sam.errors import PromptError

SHAPE = (20, 30)


@pytest.fixture
def embedding(predictor):
    return predictor.encode(np.zeros(SHAPE, np.uint8))


def test_json_of_an_ask_lists_what_was_given():
    ask = (
        Ask(proposal=True, boxes=((1, 2, 3, 4),)).with_click(5, 6).with_click(7, 8, positive=False)
    )
    assert ask.as_json() == [
        {"kind": "none"},
        {"kind": "box", "xyxy": [1, 2, 3, 4]},
        {"kind": "point", "xy": [5, 6], "positive": True},
        {"kind": "point", "xy": [7, 8], "positive": False},
    ]
    assert ask.prompt_count == 3


def test_an_ask_continues_only_what_it_adds_clicks_to():
    first = Ask().with_click(1, 1)
    second = first.with_click(2, 2)
    assert second.starts_with(first)
    assert not first.starts_with(second)
    assert not second.starts_with(Ask())
    assert not second.with_box((0, 0, 3, 3)).starts_with(first)


def test_continuing_gives_the_same_as_replaying(predictor, embedding):
    first = Ask().with_click(5, 5)
    ask = first.with_click(9, 9).with_click(6, 6, positive=False)
    earlier = answer(predictor, embedding, first)
    continued = answer(predictor, embedding, ask, earlier=(first, earlier))
    steps_of_continuing = len(predictor.asked)
    replayed = answer(predictor, embedding, ask)
    assert np.array_equal(continued.mask, replayed.mask)
    assert steps_of_continuing == 3
    assert len(predictor.asked) == 6


def test_an_earlier_answer_to_something_else_is_not_used(predictor, embedding):
    other = Ask().with_click(25, 15)
    earlier = answer(predictor, embedding, other)
    found = answer(predictor, embedding, Ask().with_click(5, 5), earlier=(other, earlier))
    assert not found.mask[15, 25]


def test_each_click_corrects_the_answer_before(predictor, embedding):
    answer(predictor, embedding, Ask(boxes=((1, 1, 9, 9),)).with_click(5, 5, positive=False))
    (box, _, no_previous), (clicked, _, previous) = predictor.asked
    assert no_previous is None
    assert len(box.points) == 0
    assert clicked.box == (1, 1, 9, 9)
    assert previous.mask[1:10, 1:10].all()


def test_negative_clicks_wait_for_something_to_correct(predictor, embedding):
    ask = Ask(corrections=(Click(5, 5, positive=False), Click(8, 8)))
    assert answer(predictor, embedding, ask).mask[8, 8]
    with pytest.raises(PromptError, match="Only negative"):
        answer(predictor, embedding, Ask(corrections=(Click(5, 5, positive=False),)))


def test_several_boxes_are_several_objects_with_their_own_clicks(predictor, embedding):
    ask = Ask(boxes=((1, 1, 5, 5), (20, 10, 25, 15))).with_click(24, 14, positive=False)
    mask = answer(predictor, embedding, ask).mask
    assert mask[1:6, 1:6].all()
    assert mask[10, 20]
    assert not mask[14, 24]
    assert not mask[8, 12]
    assert len(predictor.asked) == 3


def test_the_structure_is_passed_on(predictor, embedding):
    answer(predictor, embedding, Ask(proposal=True), structure=4)
    assert [asked[1] for asked in predictor.asked] == [4]
