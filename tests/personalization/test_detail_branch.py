"""The detail branch: from the pixels to what is added to the encoder's embedding."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from napari_fedsam.personalization import MethodOptions
from napari_fedsam.personalization.detail_branch import DetailBranch
from napari_fedsam.sam.fast_encoder import FastEncoder


def trained(width: int = 4) -> DetailBranch:
    torch.manual_seed(3)
    branch = DetailBranch(width)
    nn.init.normal_(branch.project.weight)
    return branch


PIXELS = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(0))


def test_it_adds_nothing_at_the_start() -> None:
    fresh = DetailBranch(4)
    assert not fresh(PIXELS).any()
    assert all(layer.weight.any() for layer in fresh.convolutions)


@torch.no_grad()
def test_it_is_three_dilated_convolutions_and_a_projection_of_every_cells_pixels() -> None:
    branch = trained()
    spread, mean = torch.std_mean(PIXELS, dim=(2, 3), keepdim=True)
    x = (PIXELS - mean) / (spread + 1e-3)
    for layer, reach in zip(branch.convolutions, (1, 2, 4), strict=True):
        x = F.gelu(F.conv2d(x, layer.weight, layer.bias, padding=reach, dilation=reach))
    weight = branch.project.weight[:, :, 0, 0].reshape(256, 4, 4, 4)
    expected = F.conv2d(x, weight, branch.project.bias, stride=4)
    torch.testing.assert_close(branch(PIXELS), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_pixel_is_seen_around_its_own_cell_only() -> None:
    branch = trained()
    # The pixels' mean and spread are the whole image's, and hardly move.
    changed = PIXELS.clone()
    changed[:, :, 130, 90] += 0.5
    moved = (branch(changed) - branch(PIXELS)).abs().amax(dim=(0, 1)) > 0.05
    rows, columns = moved.nonzero(as_tuple=True)
    assert moved[130 // 4, 90 // 4]
    assert int((rows - 130 // 4).abs().max()) <= 2
    assert int((columns - 90 // 4).abs().max()) <= 2


@torch.no_grad()
@given(st.floats(0.1, 50), st.floats(-100, 100))
def test_scale_and_offset_of_the_pixels_do_not_matter(scale: float, offset: float) -> None:
    branch = trained()
    torch.testing.assert_close(
        branch(PIXELS[:1] * scale + offset), branch(PIXELS[:1]), atol=0.3, rtol=0.05
    )


@torch.no_grad()
@pytest.mark.parametrize("side", [256, 1024])
def test_images_of_one_grey_and_larger_inputs_are_taken(side: int) -> None:
    answer = trained()(torch.zeros(1, 3, side, side))
    assert answer.shape == (1, 256, 64, 64)
    assert bool(answer.isfinite().all())


def test_it_belongs_to_the_site_and_the_global_view_leaves_it_out(personalise) -> None:
    model = personalise()
    names = {name for name in model.parameters_of("local") if name.startswith("detail.")}
    assert len(names) == 8
    assert model.detail_branch is model.detail
    with model.global_view():
        assert model.detail_branch is None
        with model.global_view():
            pass
        assert model.detail_branch is None
    assert model.detail_branch is model.detail
    assert copy.deepcopy(model).stay_global().detail_branch is None


@pytest.mark.parametrize(
    "changes", [{"method": "lora_fedavg"}, {"options": MethodOptions(detail_width=0)}]
)
def test_without_it_nothing_is_added(personalise, changes) -> None:
    model = personalise(**changes)
    assert model.detail_branch is None
    assert not any("detail" in name for name, _ in model.named_parameters())


def test_stored_embeddings_are_told_apart_by_it(personalise) -> None:
    model = personalise()
    encoder = FastEncoder(model, bf16=False)
    whole, frozen = encoder.content
    with torch.no_grad():
        model.detail.project.weight[0, 0] += 1
    after = encoder.content
    assert after[0] != whole
    assert after[1] == frozen
    with model.global_view():
        assert FastEncoder(model, bf16=False).content[0] not in (whole, after[0])
