"""The rearranged decoder answers as segment-anything's own modules do."""

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from napari_fedsam.personalization.insertion import insert_decoder_lora
from napari_fedsam.personalization.method_options import MethodOptions
from napari_fedsam.sam import Predictor, Prompts
from napari_fedsam.sam.decoding import FastDecoder, decode, decode_in_training
from napari_fedsam.sam.fast_decoder import is_as_published
from napari_fedsam.sam.segment_anything_models import SegmentAnything

BOXES = torch.tensor([[10.0, 20, 100, 120], [50, 50, 60, 60], [0, 0, 255, 255]])
POINTS = (torch.tensor([[[30.0, 40], [60, 60]]]), torch.tensor([[1, 0]]))
LOGITS = torch.randn(1, 1, 256, 256, generator=torch.Generator().manual_seed(1)) * 5
FEATURES = torch.randn(1, 256, 64, 64, generator=torch.Generator().manual_seed(0))
PROMPTS: list[dict[str, Any]] = [
    {"boxes": BOXES},
    {"boxes": BOXES[:1], "logits": LOGITS},
    {"points": POINTS},
    {"points": POINTS, "boxes": BOXES[1:2], "logits": LOGITS},
    {},
]
NAMES = ["three boxes", "box and mask", "points", "everything", "nothing"]


def assert_same(model: Any, prompts: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        masks, scores = decode(model, FEATURES, **prompts)
    found, found_scores = FastDecoder(model, bf16=False)(FEATURES, **prompts)
    torch.testing.assert_close(found, masks, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(found_scores, scores, atol=1e-4, rtol=1e-4)
    return found


@pytest.mark.parametrize("prompts", PROMPTS, ids=NAMES)
def test_lite_medsam(lite_medsam, prompts: dict[str, Any]) -> None:
    assert_same(lite_medsam, prompts)


@pytest.mark.parametrize("prompts", PROMPTS, ids=NAMES)
def test_segment_anything(sam_parts: SegmentAnything, prompts: dict[str, Any]) -> None:
    assert_same(sam_parts, prompts)


@pytest.fixture(scope="module")
def sam_parts() -> SegmentAnything:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SegmentAnything("vit_b", "vit_b").eval()


def assert_drafts_are_parts(model: Any) -> None:
    decoder = FastDecoder(model, bf16=False)
    masks, scores = decoder(FEATURES, boxes=BOXES)
    drafts = decoder.draft(FEATURES, BOXES)
    torch.testing.assert_close(drafts.coarse, masks[..., 2::4, 2::4], atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(drafts.scores, scores)
    finished = drafts.finish([2, 0])
    torch.testing.assert_close(finished, masks[[2, 0]], atol=1e-3, rtol=1e-4)
    assert not finished.requires_grad


def test_drafts_are_parts_of_the_masks(lite_medsam, sam_parts: SegmentAnything) -> None:
    assert_drafts_are_parts(lite_medsam)
    assert_drafts_are_parts(sam_parts)
    assert_drafts_are_parts(with_an_inserted_module(lite_medsam))


def test_bfloat16_is_close(lite_medsam, embedding) -> None:
    """On the features of a picture: the same pixels but for a few on the edge."""
    exact, fast = (
        FastDecoder(lite_medsam, bf16=bf16)(embedding.features, boxes=BOXES)
        for bf16 in (False, True)
    )
    assert fast[0].dtype == fast[1].dtype == torch.float32
    assert ((exact[0] > 0) != (fast[0] > 0)).float().mean() < 0.005
    torch.testing.assert_close(exact[1], fast[1], atol=0.02, rtol=0)


def test_changed_weights_are_used(lite_medsam) -> None:
    model = copy.deepcopy(lite_medsam)
    decoder = FastDecoder(model, bf16=False)
    before, _ = decoder(FEATURES, boxes=BOXES)
    with torch.no_grad():
        for name, parameter in model.mask_decoder.named_parameters():
            if "k_proj" in name or "output_upscaling" in name:
                parameter.mul_(1.3)
    after, _ = decoder(FEATURES, boxes=BOXES)
    assert (before - after).abs().max() > 0.1
    assert torch.equal(after, assert_same(model, {"boxes": BOXES}))


class _Doubled(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.layer(x)


def with_an_inserted_module(model: Any) -> Any:
    model = copy.deepcopy(model)
    attention = model.mask_decoder.transformer.layers[0].cross_attn_token_to_image
    attention.k_proj = _Doubled(attention.k_proj)
    return model


def test_a_decoder_with_inserted_modules_runs_as_it_is(lite_medsam) -> None:
    found = assert_same(with_an_inserted_module(lite_medsam), {"boxes": BOXES})
    assert not torch.allclose(found, assert_same(lite_medsam, {"boxes": BOXES}), atol=0.1)


def test_a_large_picture_is_answered_at_its_own_size(predictor: Predictor, scene, clicks) -> None:
    image = np.kron(scene.image, np.ones((5, 5), np.uint8))
    x, y = scene.centre
    prompts: Prompts = clicks([(x * 5 + 2, y * 5 + 2)])
    answer = predictor.predict(predictor.encode(image), prompts)
    assert answer.mask.shape == image.shape
    truth = np.kron(scene.ellipse, np.ones((5, 5), np.bool_))
    assert 2 * (answer.mask & truth).sum() / (answer.mask.sum() + truth.sum()) > 0.9


def gradients(model: Any, run: Any, prompts: dict[str, Any]) -> dict[str, torch.Tensor]:
    features = FEATURES.clone().requires_grad_()
    masks, scores = run(model, features, **prompts)
    loss = (masks * LOGITS[:, :, : masks.shape[2], : masks.shape[3]]).mean() + scores.sum()
    named = {"features": features} | {
        name: parameter
        for part in (model.mask_decoder, model.prompt_encoder)
        for name, parameter in part.named_parameters()
    }
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    # What does not take part has no gradient, or one of zeros.
    return {
        name: gradient
        for name, gradient in zip(named, found, strict=True)
        if gradient is not None and gradient.abs().max() > 0
    }


@pytest.mark.parametrize("prompts", [PROMPTS[0], PROMPTS[3], {}], ids=["boxes", "all", "none"])
def test_gradients_are_those_of_the_published_decoder(lite_medsam, prompts) -> None:
    model = copy.deepcopy(lite_medsam)
    for part in (model.mask_decoder, model.prompt_encoder):
        part.requires_grad_(True)
    fast = functools.partial(decode_in_training, bf16=False)
    found, wanted = (gradients(model, run, prompts) for run in (fast, decode))
    largest = max(float(gradient.abs().max()) for gradient in wanted.values())
    # What a softmax cancels is no more than rounding.
    for name in wanted:
        given = found.get(name, torch.zeros_like(wanted[name]))
        size = float(wanted[name].abs().max())
        torch.testing.assert_close(
            given, wanted[name], rtol=0, atol=2e-3 * size + 1e-6 * largest, msg=name
        )
    assert found.keys() <= wanted.keys()


def test_low_rank_updates_count_in_training_and_in_use(lite_medsam) -> None:
    model = copy.deepcopy(lite_medsam)
    insert_decoder_lora(model.mask_decoder, MethodOptions(decoder="lora"))
    with torch.no_grad():
        for name, parameter in model.mask_decoder.named_parameters():
            if name.endswith("lora_b"):
                parameter.normal_(std=0.2)
    assert is_as_published(model.mask_decoder)
    changed = assert_same(model, {"boxes": BOXES})
    assert (changed - assert_same(lite_medsam, {"boxes": BOXES})).abs().max() > 0.1
    trained, _ = decode_in_training(model, FEATURES, boxes=BOXES, bf16=False)
    torch.testing.assert_close(trained, changed, atol=1e-3, rtol=1e-4)
