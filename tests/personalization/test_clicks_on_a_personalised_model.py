"""A model that has learnt little of clicks answers them by other ways, too."""

import numpy as np
import pytest

from napari_fedsam.personalization import build_personalised_model
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.sam.prompts import Prompts


def dice(a, b) -> float:
    return 2 * int((a & b).sum()) / (int(a.sum()) + int(b.sum()))


@pytest.fixture(scope="module")
def predictor(make_recipe):
    model = build_personalised_model(make_recipe())
    model.load_shared(model.shared_state())
    assert "point" in model.prompt_kinds
    return Predictor(model, bf16=False)


@pytest.fixture(scope="module")
def embedding(predictor, scene):
    return predictor.encode(scene.image)


def test_a_lone_click_finds_what_boxes_find(predictor, embedding, scene) -> None:
    click = Prompts(np.array([scene.centre], np.float32), np.array([True]))
    answer = predictor.predict(embedding, click, structure=3)
    assert dice(answer.mask, scene.ellipse) > 0.85


def test_a_negative_click_drops_the_part_that_it_hits(predictor, embedding, scene) -> None:
    island = np.zeros_like(scene.ellipse)
    island[10:25, 10:25] = True
    before = predictor.redrawn(scene.ellipse | island, None)
    click = Prompts(np.array([(17, 17)], np.float32), np.array([False]))
    answer = predictor.predict(embedding, click, structure=3, previous=before)
    assert not (answer.mask & island).any()
    assert dice(answer.mask, scene.ellipse) > 0.85


def test_a_negative_click_on_the_only_part_starts_from_what_it_leaves(
    predictor, embedding, scene
) -> None:
    before = predictor.redrawn(scene.ellipse | scene.neighbour, None)
    click = Prompts(np.array([scene.neighbour_centre], np.float32), np.array([False]))
    answer = predictor.predict(embedding, click, structure=3, previous=before)
    x, y = scene.neighbour_centre
    assert not answer.mask[y, x]
    assert dice(answer.mask, scene.ellipse) > 0.85
