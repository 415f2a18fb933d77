"""A personalised model's prepared encoder follows every load and every training step."""

import pytest
import torch

from napari_fedsam.sam.fast_encoder import FastEncoder, add_details

PIXELS = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))


def shaken(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(4)
    return {
        name: value + 0.05 * torch.randn(value.shape, generator=random)
        for name, value in state.items()
    }


def assert_answers_as_the_model(encode: FastEncoder, model) -> torch.Tensor:
    found = encode(PIXELS)
    with torch.no_grad():
        expected = add_details(model, model.image_encoder(PIXELS), PIXELS)
    assert (found - expected).norm() / expected.norm() < 1e-4
    return found


# One of each kind: other blocks, all weights, copies in their place; and low-rank updates, experts
# and the detail branch.
@pytest.mark.parametrize("method", ["fedmsa", "fedsam", "ditto", "pfedsam"])
def test_every_kind_of_method_and_every_load(personalise, method: str) -> None:
    model = personalise(method=method)
    encode = FastEncoder(model, bf16=False)
    assert_answers_as_the_model(encode, model)
    model.load_shared(shaken(model.shared_state()))
    assert_answers_as_the_model(encode, model)
    model.load_local(shaken(model.local_state()))
    found = assert_answers_as_the_model(encode, model)
    with model.global_view():
        assert_answers_as_the_model(encode, model)
    assert torch.equal(encode(PIXELS), found)
