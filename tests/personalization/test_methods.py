"""Who owns which parameter, under every method and in every base model."""

import itertools
from collections import Counter
from fnmatch import fnmatchcase

import pytest
from torch import nn

from napari_fedsam.personalization import MethodOptions, RecipeError
from napari_fedsam.personalization.insertion import transformer_blocks
from napari_fedsam.personalization.methods import METHODS, Phase, method_named

SIZES = ("lite_medsam", "vit_b", "vit_l", "vit_h")
BASE = {"lite_medsam": 9_791_300, "vit_b": 93_735_472, "vit_l": 312_342_832, "vit_h": 641_090_608}
WIDTH = {"lite_medsam": 320, "vit_b": 768, "vit_l": 1024, "vit_h": 1280}
DECODER = 4_058_340
# The perceptrons of the three masks that are never asked for.
FURTHER_MASKS = 3 * (2 * (256 * 256 + 256) + 256 * 32 + 32)
TRAINED_DECODER = DECODER - FURTHER_MASKS
# Mask tokens, last norm, upscaling, one mask's perceptron, and that of the scores.
DECODER_HEAD = (
    *(4 * 256, 2 * 256, 4 * 256 * 64 + 64, 2 * 64, 4 * 64 * 32 + 32),
    *(2 * (256 * 256 + 256) + 256 * 32 + 32, 2 * (256 * 256 + 256) + 256 * 4 + 4),
)
TOKENS = 2 * 256


def lora(width: int, targets: int = 3) -> int:
    """Rank 32 in the last two blocks: from the width to the rank, and from there to the width."""
    return 2 * targets * (32 * width + width * 32)


def experts(width: int) -> int:
    """Gate, four experts down to 32 and up again, in the last two blocks."""
    return 2 * (width * 4 + 4 + 4 * (32 * width + 32 + width * 32))


# Three convolutions of 16 channels, then from 16 pixels of a cell to its 256 features.
DETAIL = 16 * (27 + 1) + 2 * 16 * (144 + 1) + 256 * (256 + 1)


def adapters(*widths: int) -> int:
    """Two bottlenecks in each block."""
    quarter = [(width, width // 4) for width in widths]
    return sum(2 * (d * r + r + r * d + d) for d, r in quarter)


ADAPTERS = {
    "lite_medsam": adapters(*[128] * 2, *[160] * 6, *[320] * 2),
    "vit_b": adapters(*[768] * 12),
    "vit_l": adapters(*[1024] * 24),
    "vit_h": adapters(*[1280] * 32),
}
LOW_ADAPTERS = {
    "lite_medsam": adapters(*[128] * 2, *[160] * 3),
    "vit_b": adapters(*[768] * 6),
    "vit_l": adapters(*[1024] * 12),
    "vit_h": adapters(*[1280] * 16),
}
# Of the last two blocks, weights and biases: TinyViT's two local convolutions have a batch norm
# each, ViT has two layer norms per block.
NORMS = {"lite_medsam": 2 * 320 * 2, "vit_b": 8 * 768, "vit_l": 8 * 1024, "vit_h": 8 * 1280}


def expected(method: str, size: str) -> tuple[int, int]:
    """Return how many parameters are shared and local."""
    low_rank = lora(WIDTH[size])
    light = low_rank + TRAINED_DECODER + TOKENS
    return {
        "pfedsam": (light, experts(WIDTH[size]) + DETAIL),
        "fedsam": (BASE[size] + TOKENS, 0),
        "fedmsa": (ADAPTERS[size] + DECODER + TOKENS, 0),
        "lora_fedavg": (light, 0),
        "lora_fedavg_ft": (light, light),
        "local": (0, light),
        "centralised": (light, 0),
        "centralised_fedmsa": (ADAPTERS[size] + DECODER + TOKENS, 0),
        "fedprox": (light, 0),
        "fedper": (low_rank + TOKENS, TRAINED_DECODER),
        "fedrep": (low_rank + TOKENS, TRAINED_DECODER),
        "ditto": (light, light),
        "local_norm": (light, NORMS[size]),
        "fedsca": (
            LOW_ADAPTERS[size] + TOKENS,
            ADAPTERS[size] - LOW_ADAPTERS[size] + TRAINED_DECODER,
        ),
    }[method]


def count(model, owner: str) -> int:
    return sum(parameter.numel() for parameter in model.parameters_of(owner).values())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", list(METHODS))
def test_counts(outline, method: str, size: str) -> None:
    model = outline(size, method=method)
    assert (count(model, "shared"), count(model, "local")) == expected(method, size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", list(METHODS))
def test_every_parameter_has_one_owner_and_only_owned_ones_learn(outline, method, size) -> None:
    model = outline(size, method=method)
    owners = [model.parameters_of(owner) for owner in ("frozen", "shared", "local")]
    names = [name for owned in owners for name in owned]
    assert len(set(names)) == len(names)
    assert len({id(p) for owned in owners for p in owned.values()}) == len(names)
    assert {id(p) for owned in owners for p in owned.values()} == {
        id(p) for p in model.parameters()
    }
    assert not any(p.requires_grad for p in owners[0].values())
    assert all(p.requires_grad for owned in owners[1:] for p in owned.values())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", ["pfedsam", "fedmsa", "local_norm"])
def test_what_is_frozen_is_the_base_models(outline, method: str, size: str) -> None:
    # What is added is never frozen; what the base model has is never lost.
    model = outline(size, method=method)
    own = experts(WIDTH[size]) + DETAIL
    added = {"pfedsam": lora(WIDTH[size]) + own, "fedmsa": ADAPTERS[size]}
    more = added.get(method, lora(WIDTH[size])) + TOKENS
    assert sum(p.numel() for p in model.parameters()) == BASE[size] + more


def test_the_papers_own_counts(outline) -> None:
    """FedFMS counts 11.16 M shared parameters for FedMSA and 93.7 M for FedSAM, without tokens."""
    light, heavy = outline("vit_b", method="fedmsa"), outline("vit_b", method="fedsam")
    adapters_only = [p for name, p in light.parameters_of("shared").items() if "adapter" in name]
    assert sum(p.numel() for p in adapters_only) == 7_100_928
    assert count(light, "shared") - TOKENS == 7_100_928 + 4_058_340 == 11_159_268
    assert count(heavy, "shared") - TOKENS == 93_735_472


@pytest.mark.parametrize(
    ("method", "decoder"),
    [
        *itertools.product(("pfedsam", "ditto"), ("frozen", "lora", "shared", "local")),
        *itertools.product(("lora_fedavg",), ("frozen", "lora", "shared")),
    ],
)
def test_the_decoders_owner(personalise, method: str, decoder: str) -> None:
    model = personalise(method=method, options=MethodOptions(decoder=decoder))
    counts = Counter(shared=lora(320) + TOKENS, frozen=BASE["lite_medsam"] - TRAINED_DECODER)
    if method == "pfedsam":
        counts["local"] += experts(320) + DETAIL
    counts["frozen" if decoder == "lora" else decoder] += TRAINED_DECODER
    if decoder == "lora":
        # Queries and values of two self-attentions (256) and five that project down to 128.
        counts["shared"] += 2 * (2 * 32 * (256 + 256) + 5 * 32 * (256 + 128))
        counts["shared"] += sum(DECODER_HEAD)
        counts["frozen"] -= sum(DECODER_HEAD)
    if method == "ditto":
        counts["local"] += counts["shared"]
    assert {owner: count(model, owner) for owner in counts} == counts


@pytest.mark.parametrize("method", ["fedper", "fedrep", "fedsca"])
def test_methods_with_a_decoder_of_their_own_never_send_it(personalise, method: str) -> None:
    model = personalise(method=method)
    assert not any(name.startswith("mask_decoder") for name in model.shared_state())
    trained = {name for name in model.local_state() if name.startswith("mask_decoder")}
    assert sum(model.local_state()[name].numel() for name in trained) == TRAINED_DECODER


@pytest.mark.parametrize("method", list(METHODS))
def test_what_draws_masks_that_nobody_asks_for_is_trained_where_a_paper_counts_it(
    personalise, method: str
) -> None:
    frozen = {
        name
        for name in personalise(method=method).parameters_of("frozen")
        if name.startswith("mask_decoder")
    }
    if method in ("fedsam", "fedmsa", "centralised_fedmsa"):
        assert not frozen
        return
    assert {name.split(".")[2] for name in frozen} == {"1", "2", "3"}
    assert all("output_hypernetworks_mlps" in name for name in frozen)


@pytest.mark.parametrize("method", list(METHODS))
def test_every_pattern_of_a_method_fits_something(personalise, method: str) -> None:
    names = [name for name, _ in personalise(method=method).named_parameters()]
    for pattern in METHODS[method].shared:
        assert any(fnmatchcase(name, pattern) for name in names), pattern


@pytest.mark.parametrize("decoder", ["frozen", "lora", "shared", "local"])
def test_no_expert_is_shared(personalise, decoder: str) -> None:
    model = personalise(options=MethodOptions(decoder=decoder))
    assert not any("expert" in name for name in model.shared_state())
    assert any("expert" in name for name in model.local_state())


def test_experts_are_shared_only_when_the_recipe_says_so(personalise) -> None:
    model = personalise(options=MethodOptions(expert_owner="shared"))
    assert any("expert" in name for name in model.shared_state())
    assert all(name.startswith("detail.") for name in model.local_state())


def test_without_experts_the_detail_branch_is_what_a_site_has_of_its_own(personalise) -> None:
    model = personalise(options=MethodOptions(experts=0))
    assert count(model, "local") == DETAIL
    assert not any("expert" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("owner", ["shared", "local"])
def test_the_tokens_owner(personalise, owner: str) -> None:
    model = personalise(options=MethodOptions(structure_tokens=owner))
    assert "structure_embeddings.weight" in model.parameters_of(owner)


@pytest.mark.parametrize("targets", [("q",), ("q", "k"), ("q", "k", "v")])
def test_lora_targets(personalise, targets: tuple[str, ...]) -> None:
    model = personalise(method="lora_fedavg", options=MethodOptions(lora_targets=targets))
    assert count(model, "shared") == lora(320, len(targets)) + TRAINED_DECODER + TOKENS


def test_local_normalisation_layers_are_the_last_blocks_batch_norms_in_tiny_vit(
    personalise,
) -> None:
    model = personalise(method="local_norm", options=MethodOptions(blocks=3))
    norms = {
        id(parameter)
        for block in transformer_blocks(model.image_encoder)[-3:]
        for module in block.modules()
        if isinstance(module, nn.BatchNorm2d)
        for parameter in module.parameters()
    }
    assert len(norms) == 3 * 2
    assert {id(p) for p in model.parameters_of("local").values()} == norms


def test_local_normalisation_layers_are_layer_norms_in_vit(outline) -> None:
    model = outline("vit_b", method="local_norm")
    assert set(model.parameters_of("local")) == {
        f"image_encoder.blocks.{block}.norm{number}.{part}"
        for block in (10, 11)
        for number in (1, 2)
        for part in ("weight", "bias")
    }


def test_only_adapters_of_the_lower_half_are_sent_by_fedsca(outline) -> None:
    model = outline("vit_b", method="fedsca")
    sent = {name.split(".")[2] for name in model.parameters_of("shared") if "adapter" in name}
    kept = {name.split(".")[2] for name in model.parameters_of("local") if "adapter" in name}
    assert sent == {str(block) for block in range(6)}
    assert kept == {str(block) for block in range(6, 12)}


def test_a_site_alone_sends_nothing(personalise) -> None:
    model = personalise(method="local")
    assert model.shared_state() == {}
    assert model.shared_spec() == {}


@pytest.mark.parametrize(
    ("options", "experts"),
    [
        ({"blocks": 1}, 1),
        ({"blocks": 2}, 2),
        ({"blocks": 5}, 2),
        ({"blocks": 5, "expert_blocks": 4}, 4),
    ],
)
def test_modules_sit_in_the_last_blocks_only(personalise, options, experts) -> None:
    model = personalise(options=MethodOptions(**options))
    blocks = transformer_blocks(model.image_encoder)

    def last(count: int) -> list[bool]:
        return [False] * (len(blocks) - count) + [True] * count

    assert [hasattr(block.attn.qkv, "lora_a") for block in blocks] == last(options["blocks"])
    assert [hasattr(block.mlp, "experts") for block in blocks] == last(experts)


def test_more_blocks_than_there_are_are_refused(personalise, base) -> None:
    blocks = len(transformer_blocks(base.image_encoder))
    assert blocks == 10
    personalise(method="lora_fedavg", options=MethodOptions(blocks=blocks))
    with pytest.raises(RecipeError, match="last 11 blocks, but this encoder has 10"):
        personalise(options=MethodOptions(blocks=blocks + 1))


def test_an_unknown_method_lists_the_known_ones(make_recipe) -> None:
    with pytest.raises(RecipeError, match="no method named 'magic'.*pfedsam.*fedmsa"):
        method_named("magic")
    with pytest.raises(RecipeError, match="no method named 'magic'"):
        make_recipe(method="magic")


UPDATE = {
    "pfedsam": [("both", True)],
    "lora_fedavg_ft": [("shared", False)],
    "local": [("local", True)],
    "fedper": [("both", True)],
    "fedrep": [("local", True), ("shared", True)],
    "ditto": [("shared", False)],
    "local_norm": [("both", True)],
    "fedsca": [("both", True)],
}


@pytest.mark.parametrize("method", list(METHODS))
def test_what_is_trained_before_the_exchange(method: str) -> None:
    phases = METHODS[method].before_exchange(MethodOptions())
    found = [(phase.trains, phase.personal) for phase in phases]
    assert found == UPDATE.get(method, [("shared", True)])


@pytest.mark.parametrize(
    ("schedule", "phase"),
    [
        ("joint", Phase("both")),
        ("alternating", Phase("both", alternates=True)),
        ("decoupled", Phase("shared", personal=False)),
    ],
)
def test_personalised_sam_trains_by_a_schedule(schedule, phase) -> None:
    options = MethodOptions(schedule=schedule)
    assert METHODS["pfedsam"].before_exchange(options) == (phase,)


def test_what_is_trained_after_the_aggregation() -> None:
    after = {name: m.personalise for name, m in METHODS.items() if m.personalise}
    assert after == {
        "pfedsam": (Phase("local", distils=True),),
        "ditto": (Phase("local", proximal=True),),
    }
    assert {n: m.finale for n, m in METHODS.items() if m.finale} == {
        "lora_fedavg_ft": (Phase("local"),)
    }


def test_what_else_tells_the_methods_apart() -> None:
    def those(condition) -> set[str]:
        return {name for name, method in METHODS.items() if condition(method)}

    assert len(METHODS) == 14
    assert those(lambda m: any(p.proximal for p in m.update)) == {"fedprox"}
    assert those(lambda m: m.aggregation == "similarity") == {"fedsca"}
    assert those(lambda m: not m.federates) == {"local", "centralised", "centralised_fedmsa"}
    assert those(lambda m: m.pooled) == {"centralised", "centralised_fedmsa"}
    assert those(lambda m: m.copies == "kept") == {"ditto"}
    assert those(lambda m: m.copies == "shifted") == {"lora_fedavg_ft"}
    assert all(
        name == method.name and method.title and method.source for name, method in METHODS.items()
    )


# Something else than the default, for every option.
OTHER = {
    "blocks": 1,
    "lora_rank": 4,
    "lora_alpha": 4.0,
    "lora_targets": ("q",),
    "experts": 6,
    "expert_blocks": 1,
    "expert_width": 16,
    "top_k": 1,
    "gate": "token",
    "expert_owner": "shared",
    "detail_width": 0,
    "load_balance": 0.5,
    "decoder": "lora",
    "personal_decoder": True,
    "structure_tokens": "local",
    "schedule": "decoupled",
    "temperature": 3.0,
    "distillation": 0.25,
    "proximal": 0.5,
}
LORA_OPTIONS = {"lora_rank", "lora_alpha", "lora_targets"}
EXPERT_OPTIONS = {
    *("experts", "expert_blocks", "expert_width", "top_k", "gate", "expert_owner", "load_balance"),
}
LORA_METHODS = {
    *("lora_fedavg", "lora_fedavg_ft", "local", "centralised", "fedprox", "fedper", "fedrep"),
    *("ditto", "local_norm", "pfedsam"),
}

NOTHING_LOCAL = {
    *("fedsam", "fedmsa", "lora_fedavg", "fedprox", "centralised", "centralised_fedmsa"),
}


def useful(method: str) -> set[str]:
    options = set() if method in NOTHING_LOCAL else {"structure_tokens"}
    if method in LORA_METHODS:
        options |= {"blocks"} | LORA_OPTIONS
    if method not in ("fedsam", "fedmsa", "centralised_fedmsa", "fedper", "fedrep", "fedsca"):
        options |= {"decoder"}
    if method == "pfedsam":
        options |= EXPERT_OPTIONS | {
            "detail_width",
            "personal_decoder",
            "temperature",
            "distillation",
        }
        options |= {"schedule"}
    if method in ("fedprox", "ditto"):
        options |= {"proximal"}
    return options


@pytest.mark.parametrize("method", ["lora_fedavg", "fedprox", "centralised"])
def test_where_nothing_local_is_trained_the_decoder_cannot_be(make_recipe, method: str) -> None:
    with pytest.raises(ValueError, match=f"{method} trains nothing .* its decoder cannot be local"):
        make_recipe(method=method, options=MethodOptions(decoder="local"))


@pytest.mark.parametrize("method", list(METHODS))
def test_only_what_trains_something_local_may_have_local_parts(method: str) -> None:
    phases = METHODS[method]
    trained = {
        phase.trains
        for phase in (
            *phases.before_exchange(MethodOptions()),
            *phases.personalise,
            *phases.finale,
        )
    }
    assert (method in NOTHING_LOCAL) == (trained == {"shared"})


def test_the_table_names_every_option() -> None:
    assert OTHER.keys() == MethodOptions.model_fields.keys()


@pytest.mark.parametrize("option", list(OTHER))
@pytest.mark.parametrize("method", list(METHODS))
def test_options_of_no_use_to_a_method_are_refused(make_recipe, method: str, option: str) -> None:
    options = MethodOptions(**{option: OTHER[option]})
    if option in useful(method):
        assert make_recipe(method=method, options=options).options == options
        return
    with pytest.raises(ValueError, match=f"{method} has no use for the option {option}:"):
        make_recipe(method=method, options=options)
