"""Who owns which parameter, under every method."""

from collections import Counter
from fnmatch import fnmatchcase

import pytest

from napari_fedsam.personalization import MethodOptions, RecipeError
from napari_fedsam.personalization.insertion import transformer_blocks
from napari_fedsam.personalization.methods import METHODS, method_named

BASE = 9_791_300  # LiteMedSAM's parameters
DECODER = 4_058_340
TOKENS = 2 * 256
# In the last two blocks, 320 wide: queries and values, (2, 8, 320) and (2, 320, 8) each.
LORA = 2 * (2 * 8 * 320 + 2 * 320 * 8)
# Gate, four experts down to 32 and up again.
EXPERTS = 2 * (320 * 4 + 4 + 4 * (32 * 320 + 32 + 320 * 32))

EXPECTED = {
    "pfedsam": (LORA + TOKENS, EXPERTS),
    "lora_fedavg": (LORA + TOKENS, 0),
}


def count(model, owner: str) -> int:
    return sum(parameter.numel() for parameter in model.parameters_of(owner).values())


@pytest.mark.parametrize("decoder", ["frozen", "shared", "local"])
@pytest.mark.parametrize("method", list(EXPECTED))
def test_counts(personalise, method: str, decoder: str) -> None:
    model = personalise(method=method, options=MethodOptions(decoder=decoder))
    expected = Counter(shared=EXPECTED[method][0], local=EXPECTED[method][1], frozen=BASE - DECODER)
    expected[decoder] += DECODER
    assert {owner: count(model, owner) for owner in expected} == expected


def test_fedsam_shares_everything(personalise) -> None:
    model = personalise(method="fedsam")
    assert count(model, "shared") == BASE + TOKENS
    assert count(model, "local") == count(model, "frozen") == 0


@pytest.mark.parametrize("method", list(METHODS))
def test_every_parameter_has_one_owner_and_only_owned_ones_learn(personalise, method) -> None:
    model = personalise(method=method)
    owned = [name for owner in ("frozen", "shared", "local") for name in model.parameters_of(owner)]
    names = [name for name, _ in model.named_parameters()]
    assert sorted(owned) == sorted(names)
    frozen = model.parameters_of("frozen")
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name not in frozen)


@pytest.mark.parametrize("method", list(METHODS))
def test_every_pattern_of_a_method_fits_something(personalise, method: str) -> None:
    names = [name for name, _ in personalise(method=method).named_parameters()]
    for pattern in METHODS[method].shared + METHODS[method].local:
        assert any(fnmatchcase(name, pattern) for name in names), pattern


def test_no_expert_is_ever_shared(personalise) -> None:
    for decoder in ("frozen", "shared", "local"):
        model = personalise(options=MethodOptions(decoder=decoder))
        assert not any("expert" in name for name in model.shared_state())
        assert any("expert" in name for name in model.local_state())


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_modules_sit_in_the_last_blocks_only(personalise, blocks: int) -> None:
    model = personalise(options=MethodOptions(blocks=blocks))
    changed = [hasattr(block.mlp, "experts") for block in transformer_blocks(model.image_encoder)]
    lora = [hasattr(b.attn.qkv, "lora_a") for b in transformer_blocks(model.image_encoder)]
    assert changed == lora
    assert changed == [False] * (len(changed) - blocks) + [True] * blocks


def test_more_blocks_than_there_are_are_refused(personalise, base) -> None:
    blocks = len(transformer_blocks(base.image_encoder))
    assert blocks == 10
    personalise(method="lora_fedavg", options=MethodOptions(blocks=blocks))
    with pytest.raises(RecipeError, match="last 11 blocks, but this encoder has 10"):
        personalise(options=MethodOptions(blocks=blocks + 1))


def test_more_answering_experts_than_experts_are_refused() -> None:
    with pytest.raises(ValueError, match="top_k is 3 but there are only 2 experts"):
        MethodOptions(experts=2, top_k=3)


def test_an_unknown_method_lists_the_known_ones(personalise) -> None:
    with pytest.raises(RecipeError, match="no method named 'magic'.*pfedsam"):
        method_named("magic")
    with pytest.raises(RecipeError, match="no method named 'magic'"):
        personalise(method="magic")


def test_pfedsam_learns_the_shared_part_first_then_distils_into_the_local_one() -> None:
    phases = METHODS["pfedsam"].phases
    assert [(phase.trains, phase.distils) for phase in phases] == [
        ("shared", False),
        ("local", True),
    ]
    for name in ("lora_fedavg", "fedsam"):
        assert [phase.trains for phase in METHODS[name].phases] == ["shared"]
