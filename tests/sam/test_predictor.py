"""LiteMedSAM answers prompts on a picture; masks of an earlier run are the reference.

`NAPARI_FEDSAM_UPDATE_GOLDEN=1` writes the reference anew.
"""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from napari_fedsam.sam import ImageEmbedding, Prediction, Predictor, PromptError, Prompts
from napari_fedsam.sam.lite_medsam import LiteMedSam
from napari_fedsam.sam.predictor import has_fast_bf16

GOLDEN = Path(__file__).parent / "golden"
Clicks = Callable[..., Prompts]
# In the ellipse, near enough to its neighbour for both to be found from here.
BESIDE_THE_JOINT = (100, 80)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return 2 * int((a & b).sum()) / (int(a.sum()) + int(b.sum()))


def check_golden(name: str, mask: NDArray[np.bool_]) -> None:
    path = GOLDEN / f"{name}.png"
    if os.environ.get("NAPARI_FEDSAM_UPDATE_GOLDEN"):
        Image.fromarray(mask).save(path)
    with Image.open(path) as picture:
        assert dice(mask, np.asarray(picture).astype(np.bool_)) >= 0.98


@pytest.fixture
def ask(predictor: Predictor, embedding: ImageEmbedding) -> Callable[..., Prediction]:
    def ask(prompts: Prompts, previous: Prediction | None = None) -> Prediction:
        return predictor.predict(embedding, prompts, previous=previous)

    return ask


@pytest.fixture
def both_wide(scene) -> Prompts:
    """A box around the ellipse and its neighbour."""
    return Prompts(box=(37, 50, 156, 105))


def test_a_box(ask, scene) -> None:
    answer = ask(Prompts(box=scene.box))
    check_golden("box", answer.mask)
    assert dice(answer.mask, scene.ellipse) > 0.95
    assert answer.mask.shape == scene.image.shape
    assert answer.mask.dtype == np.bool_
    assert answer.low_res_logits.shape == (256, 256)
    assert answer.low_res_logits.dtype == np.float32
    assert 0.7 < answer.score < 1.1


def test_a_lone_click(ask, scene, clicks: Clicks) -> None:
    answer = ask(clicks([scene.centre]))
    check_golden("click", answer.mask)
    assert dice(answer.mask, scene.ellipse) > 0.9


def test_a_click_on_the_other_object_finds_that_one(ask, scene, clicks: Clicks) -> None:
    assert dice(ask(clicks([scene.neighbour_centre])).mask, scene.neighbour) > 0.9


def test_a_negative_click_corrects_what_came_before(ask, scene, clicks, both_wide) -> None:
    before = ask(both_wide)
    x, y = scene.neighbour_centre
    assert before.mask[y, x]
    answer = ask(clicks([BESIDE_THE_JOINT], [scene.neighbour_centre]), before)
    check_golden("click_and_negative_click", answer.mask)
    assert not answer.mask[y, x]
    assert dice(answer.mask, scene.ellipse) > 0.9


def test_a_click_that_the_answer_agrees_with_changes_nothing(ask, clicks, both_wide) -> None:
    before = ask(both_wide)
    assert ask(clicks([BESIDE_THE_JOINT]), before) is before


def test_a_positive_click_keeps_what_was_right(ask, scene, clicks) -> None:
    before = ask(Prompts(box=scene.box))
    answer = ask(clicks([scene.neighbour_centre]), before)
    assert not (before.mask & ~answer.mask).any()
    assert dice(answer.mask, scene.ellipse | scene.neighbour) > 0.9


def test_a_mask_with_a_click_inside_is_followed_as_one_without(ask, scene, clicks) -> None:
    clicked = ask(clicks([scene.centre], mask=scene.ellipse))
    assert np.array_equal(clicked.mask, ask(Prompts(mask=scene.ellipse)).mask)


def test_a_box_with_a_negative_click(ask, scene, clicks, both_wide) -> None:
    answer = ask(clicks([], [scene.neighbour_centre], box=both_wide.box))
    check_golden("box_and_negative_click", answer.mask)
    x, y = scene.neighbour_centre
    assert not answer.mask[y, x]
    assert dice(answer.mask, scene.ellipse) > 0.9


def test_a_negative_click_beside_the_mask_changes_nothing(ask, scene, clicks) -> None:
    plain = ask(Prompts(box=scene.box))
    answer = ask(clicks([], [(5, 5)], box=scene.box))
    assert np.array_equal(answer.mask, plain.mask)


def test_a_mask(ask, scene) -> None:
    answer = ask(Prompts(mask=scene.ellipse))
    check_golden("mask", answer.mask)
    assert dice(answer.mask, scene.ellipse) > 0.9


def test_a_mask_is_more_than_its_box(ask, scene) -> None:
    with_mask = ask(Prompts(mask=scene.ellipse))
    assert not np.allclose(with_mask.low_res_logits, ask(Prompts(box=scene.box)).low_res_logits)


def test_a_mask_with_a_negative_click_loses_that_part(ask, scene, clicks) -> None:
    drawn = scene.ellipse | scene.neighbour
    answer = ask(clicks([], [scene.neighbour_centre], mask=drawn))
    assert dice(answer.mask, scene.ellipse) > 0.9


def test_a_mask_that_is_clicked_away_is_empty(ask, scene, clicks) -> None:
    speck = np.zeros_like(scene.ellipse)
    speck[80, 75] = True
    assert not ask(clicks([], [(75, 80)], mask=speck)).mask.any()


def test_only_negative_clicks_are_refused(ask, clicks: Clicks) -> None:
    with pytest.raises(PromptError, match="Only negative clicks"):
        ask(clicks([], [(10, 10)]))


@pytest.mark.parametrize(
    "prompts",
    [
        Prompts(np.array([[200, 10]]), np.array([True])),
        Prompts(np.array([[10, 150]]), np.array([True])),
        Prompts(box=(210, 10, 240, 30)),
        Prompts(mask=np.ones((200, 150), np.bool_)),
    ],
)
def test_prompts_outside_are_refused(ask, prompts: Prompts) -> None:
    with pytest.raises(PromptError, match="slice"):
        ask(prompts)


def test_the_base_model_proposes_nothing_worth_keeping_but_answers(ask, scene) -> None:
    answer = ask(Prompts.none())
    assert answer.mask.shape == scene.image.shape
    assert np.isfinite(answer.low_res_logits).all()


def test_earlier_questions_leave_no_trace(predictor, embedding, scene, clicks) -> None:
    prompts = Prompts(box=scene.box)
    first = predictor.predict(embedding, prompts)
    predictor.predict(embedding, clicks([scene.neighbour_centre], [scene.centre]))
    predictor.predict(embedding, Prompts(mask=scene.neighbour))
    predictor.encode(scene.image[:, ::-1].copy())
    again = predictor.predict(embedding, prompts)
    assert np.array_equal(first.low_res_logits, again.low_res_logits)
    assert np.array_equal(first.mask, again.mask)
    assert first.score == again.score


def test_the_same_image_gives_the_same_embedding(predictor, embedding, scene) -> None:
    again = predictor.encode(scene.image)
    assert torch.equal(again.features, embedding.features)
    assert again.image_shape == (150, 200)
    assert not again.features.requires_grad


def test_bfloat16_gives_nearly_the_same_mask(lite_medsam, embedding, scene) -> None:
    answer = Predictor(lite_medsam, bf16=True).predict(embedding, Prompts(box=scene.box))
    assert dice(answer.mask, scene.ellipse) > 0.95
    assert answer.low_res_logits.dtype == np.float32


@pytest.mark.parametrize(
    ("major", "hip", "native"), [(7, None, False), (8, None, True), (9, None, True), (1, "6", True)]
)
def test_a_gpu_is_asked_itself_for_native_bfloat16(monkeypatch, major, hip, native) -> None:
    asked: list[torch.device] = []

    def properties(device: torch.device) -> SimpleNamespace:
        asked.append(device)
        return SimpleNamespace(major=major)

    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    second = torch.device("cuda:1")
    assert has_fast_bf16(second) is native
    assert asked == ([] if hip else [second])


def test_prompts_are_scaled_with_a_large_image(predictor, scene) -> None:
    large = np.kron(scene.image, np.ones((3, 3), np.uint8))
    embedding = predictor.encode(large)
    box = tuple(3 * value + 1 for value in scene.box)
    answer = predictor.predict(embedding, Prompts(box=box))
    assert answer.mask.shape == (450, 600)
    assert dice(answer.mask[1::3, 1::3], scene.ellipse) > 0.95


def test_the_stages_in_a_chain_are_the_encoder(lite_medsam: LiteMedSam, embedding, scene) -> None:
    x = lite_medsam.preprocess(scene.image)
    with torch.no_grad():
        expected = lite_medsam.image_encoder(x)
        for stage in lite_medsam.encoder_stages():
            x = stage(x)
    assert torch.equal(x, expected)
    torch.testing.assert_close(x, embedding.features, atol=1e-3, rtol=1e-3)


def test_the_base_model_has_no_structure_tokens(lite_medsam: LiteMedSam) -> None:
    assert lite_medsam.structure_tokens(1, 3).shape == (3, 0, 256)
