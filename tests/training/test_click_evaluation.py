"""Counting the clicks of a simulated user."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from napari_fedsam.sam.prediction import ImageEmbedding, Prediction
from napari_fedsam.sam.prompts import Prompts
from napari_fedsam.training.click_evaluation import MOST_CLICKS, clicks_to, dice_after_clicks
from napari_fedsam.training.samples import TrainingSample


@dataclass
class Scripted:
    """Answers with the given masks, one after the other, the last of them from then on."""

    masks: list[np.ndarray]
    asked: list[Prompts] = field(default_factory=list)
    previous: list[np.ndarray | None] = field(default_factory=list)

    def encode(self, image: np.ndarray) -> ImageEmbedding:
        return ImageEmbedding(None, image.shape)  # type: ignore[arg-type]

    def predict(self, embedding, prompts, *, structure, previous=None) -> Prediction:
        self.asked.append(prompts)
        self.previous.append(None if previous is None else previous.mask)
        mask = self.masks[min(len(self.asked), len(self.masks)) - 1]
        return Prediction(mask, 1.0, np.zeros((256, 256), np.float32))


@pytest.fixture
def sample() -> TrainingSample:
    mask = np.zeros((20, 30), np.bool_)
    mask[4:12, 5:15] = True
    return TrainingSample("a", "g", np.zeros((20, 30), np.uint8), mask, 1)


def test_a_user_who_is_never_answered_clicks_ten_different_pixels(sample) -> None:
    stubborn = Scripted([np.zeros_like(sample.mask)])
    reached = dice_after_clicks(stubborn, sample, target=0.9, proposes=False)
    assert reached == [0.0] * (MOST_CLICKS + 1)
    last = stubborn.asked[-1]
    assert len({tuple(point) for point in last.points.tolist()}) == MOST_CLICKS
    assert last.labels.all()
    assert all(sample.mask[int(y), int(x)] for x, y in last.points)


def test_a_user_stops_where_the_mask_is_good_enough(sample) -> None:
    half = sample.mask.copy()
    half[8:] = False
    model = Scripted([half, sample.mask])
    reached = dice_after_clicks(model, sample, target=0.9, proposes=False)
    assert reached == pytest.approx([0, 2 / 3, 1])
    assert [len(prompts.points) for prompts in model.asked] == [1, 2]
    assert model.previous[0] is None
    assert model.previous[1] is half


def test_a_user_starts_from_the_proposal(sample) -> None:
    too_much = sample.mask.copy()
    too_much[:, 20:] = True
    model = Scripted([too_much, sample.mask])
    dice_after_clicks(model, sample, target=0.9, proposes=True)
    proposal, corrected = model.asked
    assert proposal.is_empty
    assert corrected.labels.tolist() == [False]
    assert model.previous[1] is too_much


@pytest.mark.parametrize(
    ("reached", "clicks"),
    [((0.95,), 0), ((0.1, 0.9), 1), ((0.1, 0.95, 0.2), 1), ((0.1, 0.2), MOST_CLICKS)],
)
def test_clicks_to_a_dice(reached: tuple[float, ...], clicks: int) -> None:
    assert clicks_to(reached, 0.9) == clicks
