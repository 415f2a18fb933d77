"""The prepared encoder answers as the plain one does, and never with old weights."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from napari_fedsam.sam import Predictor, Prompts, fused_ops
from napari_fedsam.sam.fast_encoder import FastEncoder, fast_stages
from napari_fedsam.sam.lite_medsam import LiteMedSam
from napari_fedsam.sam.predictor import has_fast_bf16
from napari_fedsam.sam.prompts import box_of_mask
from napari_fedsam.sam.segment_anything_models import SegmentAnything
from napari_fedsam.training.manifest import load_row, read_manifest

native_bf16 = pytest.mark.skipif(
    not has_fast_bf16(torch.device("cpu")), reason="a processor with native bfloat16 products"
)


@pytest.fixture(params=["fused operators", "plain operators"])
def operators(request, monkeypatch) -> str:
    if request.param == "plain operators":
        monkeypatch.setattr(fused_ops, "FUSED", False)
    elif not fused_ops.FUSED:
        pytest.skip("torch without oneDNN")
    return str(request.param)


@pytest.fixture
def model(lite_medsam: LiteMedSam) -> LiteMedSam:
    return copy.deepcopy(lite_medsam)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@torch.no_grad()
def test_float32_is_the_same_up_to_rounding(operators, model, scene) -> None:
    pixels = model.preprocess(scene.image)
    found = FastEncoder(model, bf16=False)(pixels)
    assert found.dtype == torch.float32
    assert relative_error(found, model.image_encoder(pixels)) < 1e-4


@torch.no_grad()
def test_a_batch_is_its_images_one_by_one(model) -> None:
    pixels = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    encode = FastEncoder(model, bf16=False)
    torch.testing.assert_close(
        encode(pixels), torch.cat([encode(one[None]) for one in pixels]), atol=1e-3, rtol=1e-3
    )


@torch.no_grad()
def test_every_stage_of_lite_medsam_is_prepared(model) -> None:
    kinds = {type(stage) for stage in fast_stages(model.encoder_stages(), torch.float32)}
    assert fused_ops.LiveModule not in kinds


@pytest.fixture(scope="module")
def vit_b() -> SegmentAnything:
    """Random weights in the official layout, with position terms that matter."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = SegmentAnything("vit_b", "vit_b").eval()
        for name, parameter in model.image_encoder.named_parameters():
            if "pos" in name:
                nn.init.normal_(parameter, std=0.2)
    return model


@torch.no_grad()
def test_vit_stages_are_the_same_up_to_rounding(operators, vit_b: SegmentAnything) -> None:
    """A windowed and a global block, and both ends, on a map of 20 x 20 tokens."""
    stages = vit_b.encoder_stages()
    tokens = torch.randn(1, 20, 20, 768, generator=torch.Generator().manual_seed(2))
    for index in (1, 3, len(stages) - 1):
        (fast,) = fast_stages([stages[index]], torch.float32)
        assert not isinstance(fast, fused_ops.LiveModule)
        assert relative_error(fast(tokens), stages[index](tokens)) < 1e-5
    pixels = torch.rand(1, 3, 1024, 1024, generator=torch.Generator().manual_seed(3))
    (patches,) = fast_stages(stages[:1], torch.float32)
    assert relative_error(patches(pixels), stages[0](pixels)) < 1e-5


@native_bf16
@torch.no_grad()
def test_vit_b_in_bfloat16_is_within_two_percent(vit_b: SegmentAnything, scene) -> None:
    pixels = vit_b.preprocess(scene.image)
    found = FastEncoder(vit_b, bf16=True)(pixels)
    assert relative_error(found, vit_b.image_encoder(pixels)) < 0.02


Change = Callable[[LiteMedSam], object]


def _step_of_an_optimiser(model: LiteMedSam) -> None:
    parameters = list(model.image_encoder.layers[1].parameters())
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW(parameters, lr=0.01).step()


def _loading(model: LiteMedSam) -> None:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    state["image_encoder.neck.3.weight"] *= 1.5
    model.load_weights(state)


def _swapping(model: LiteMedSam) -> None:
    linear = model.image_encoder.layers[2].blocks[0].mlp.fc1
    linear.weight = nn.Parameter(linear.weight.detach() * 2)


def _replacing_data(model: LiteMedSam) -> None:
    weight = model.image_encoder.layers[0].blocks[0].conv1.c.weight
    weight.data = weight.data * 2


def _running_statistics(model: LiteMedSam) -> None:
    model.image_encoder.layers[1].blocks[0].local_conv.bn.running_mean.add_(1)


def _attention_biases(model: LiteMedSam) -> None:
    with torch.no_grad():
        model.image_encoder.layers[3].blocks[1].attn.attention_biases.add_(
            torch.linspace(-3, 3, 49)
        )
    model.train()
    model.eval()


@pytest.mark.parametrize(
    "change",
    [
        _step_of_an_optimiser,
        _loading,
        _swapping,
        _replacing_data,
        _running_statistics,
        _attention_biases,
    ],
)
def test_changed_weights_are_never_answered_with_old_ones(model, scene, change: Change) -> None:
    pixels = model.preprocess(scene.image)
    encode = FastEncoder(model, bf16=False)
    before = encode(pixels)
    change(model)
    found = encode(pixels)
    assert relative_error(found, before) > 1e-3
    with torch.no_grad():
        assert relative_error(found, model.image_encoder(pixels)) < 1e-4


def test_unchanged_weights_are_prepared_once(model, scene, monkeypatch) -> None:
    from napari_fedsam.sam import fast_encoder

    prepared = []
    monkeypatch.setattr(
        fast_encoder, "fast_stages", lambda *a: prepared.append(1) or fast_stages(*a)
    )
    encode = FastEncoder(model, bf16=False)
    pixels = model.preprocess(scene.image)
    encode(pixels)
    encode(pixels)
    assert len(prepared) == 1


@native_bf16
@pytest.mark.data
@pytest.mark.parametrize("task", ["polyp", "cardiac_lv"])
def test_masks_in_bfloat16_are_those_of_the_plain_module(
    data_folder: Path, lite_medsam: LiteMedSam, task: str
) -> None:
    rows = read_manifest(data_folder / "manifest.csv", task, split="test")
    fast, exact = Predictor(lite_medsam, bf16=True), Predictor(lite_medsam, bf16=False)
    found = []
    for index in np.linspace(0, len(rows) - 1, 6).astype(int):
        sample = load_row(rows[index], 1)
        box = box_of_mask(sample.mask > 0)
        if box is None:
            continue
        prompts = Prompts(box=box)
        masks = [p.predict(p.encode(sample.image), prompts).mask for p in (fast, exact)]
        found.append(2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum()))
    assert len(found) >= 4
    assert np.mean(found) >= 0.995
