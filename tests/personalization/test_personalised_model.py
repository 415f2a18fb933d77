"""The personalised model: step 0, its parameters in and out, its structures' tokens."""

import copy

import numpy as np
import pytest
import torch

from napari_fedsam.personalization import (
    MethodOptions,
    ParameterError,
    PersonalisedModel,
    PromptShares,
    TrainingOptions,
    build_personalised_model,
)
from napari_fedsam.personalization.experts import MixtureOfExperts
from napari_fedsam.personalization.insertion import transformer_blocks
from napari_fedsam.personalization.methods import METHODS
from napari_fedsam.sam.decoding import decode
from napari_fedsam.sam.fast_encoder import add_details
from napari_fedsam.sam.protocol import PromptableModel


def same(before, after) -> bool:
    assert before.keys() == after.keys()
    return all(torch.equal(after[name], value) for name, value in before.items())


@pytest.fixture(scope="module")
def model(personalise) -> PersonalisedModel:
    built: PersonalisedModel = personalise()
    return built


@pytest.fixture(scope="module")
def pixels(base) -> torch.Tensor:
    image = np.random.default_rng(0).integers(0, 256, (60, 80)).astype(np.uint8)
    tensor: torch.Tensor = base.preprocess(image)
    return tensor


@pytest.fixture(scope="module")
def passed_on(base, pixels) -> list[torch.Tensor]:
    """Return what goes into each stage of the base model's encoder, and what comes out at last."""
    with torch.no_grad():
        tensors = [pixels]
        for stage in base.encoder_stages():
            tensors.append(stage(tensors[-1]))
    return tensors


@pytest.fixture(scope="module")
def base_features(passed_on) -> torch.Tensor:
    features: torch.Tensor = passed_on[-1]
    return features


def size(stage) -> int:
    return sum(1 for _ in stage.modules())


def encoded(model: PersonalisedModel, base, passed_on: list[torch.Tensor]) -> torch.Tensor:
    """Encode with another model, beginning where it has more in it than the base model.

    The stages before are the base model's own, and slow.
    """
    stages = model.encoder_stages()
    pairs = list(zip(stages, base.encoder_stages(), strict=True))
    changed = [i for i, (mine, bases) in enumerate(pairs) if size(mine) != size(bases)]
    first = changed[0] if changed else len(stages) - 3
    x = passed_on[first]
    for stage in stages[first:]:
        x = stage(x)
    return x


@pytest.fixture(scope="module")
def encode(base, passed_on):
    return lambda model: add_details(model, encoded(model, base, passed_on), passed_on[0])


BOX = torch.tensor([[20.0, 30.0, 200.0, 150.0]])


@pytest.mark.parametrize("method", list(METHODS))
def test_at_step_zero_it_is_the_base_model(
    personalise, base, encode, base_features, method: str
) -> None:
    built = personalise(method=method)
    with torch.no_grad():
        assert torch.equal(encode(built), base_features)
        same_masks(built, base, base_features)


@pytest.mark.parametrize(
    "options",
    [
        MethodOptions(decoder="lora"),
        MethodOptions(decoder="lora", personal_decoder=True),
        MethodOptions(personal_decoder=True),
        MethodOptions(lora_targets=("q", "k", "v")),
        MethodOptions(gate="token", top_k=1, blocks=5),
    ],
)
def test_at_step_zero_no_option_changes_an_answer(
    personalise, base, encode, base_features, options
) -> None:
    built = personalise(options=options)
    with torch.no_grad():
        assert torch.equal(encode(built), base_features)
        same_masks(built, base, base_features)


def same_masks(built: PromptableModel, base: PromptableModel, features: torch.Tensor) -> None:
    # Without a structure there is no token, so that the decoders are asked the same.
    answers = [decode(model, features, boxes=BOX, structure=None) for model in (built, base)]
    for mine, theirs in zip(*answers, strict=True):
        assert torch.equal(mine, theirs)


@pytest.fixture(scope="module")
def vit_encode(vit_base):
    """Encode one window of a ViT-B's tokens, for its whole square takes half a minute."""
    tokens = torch.randn(1, 14, 14, 768, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        passed_on = [torch.empty(0), tokens]
        for stage in vit_base.encoder_stages()[1:]:
            passed_on.append(stage(passed_on[-1]))
    return lambda model: encoded(model, vit_base, passed_on), passed_on[-1]


@pytest.mark.parametrize("method", list(METHODS))
def test_at_step_zero_it_is_segment_anythings_model_too(
    vit_base, vit_encode, make_recipe, method: str
) -> None:
    encode, expected = vit_encode
    built = PersonalisedModel(copy.deepcopy(vit_base), make_recipe(method=method))
    features = torch.randn(1, 256, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(encode(built), expected)
        same_masks(built, vit_base, features)


@pytest.mark.parametrize("method", ["pfedsam", "fedmsa", "lora_fedavg"])
def test_modules_in_segment_anythings_model_answer_once_they_are_trained(
    vit_base, vit_encode, make_recipe, method: str
) -> None:
    encode, expected = vit_encode
    built = PersonalisedModel(copy.deepcopy(vit_base), make_recipe(method=method))
    with torch.no_grad():
        for name, parameter in built.named_parameters():
            if any(part in name for part in ("lora_b", "adapter.up", "experts.up")):
                parameter.fill_(0.05)
        assert not torch.allclose(encode(built), expected)


def test_inserted_modules_answer_once_they_are_trained(personalise, encode, base_features) -> None:
    built = personalise()
    built.load_local({k: torch.full_like(v, 0.05) for k, v in built.local_state().items()})
    with torch.no_grad():
        assert not torch.allclose(encode(built), base_features)


def test_it_is_a_promptable_model_that_also_proposes(model, base) -> None:
    assert isinstance(model, PromptableModel)
    assert model.prompt_kinds == base.prompt_kinds | {"none"}
    assert model.input_size == base.input_size
    assert model.name == "lite_medsam, Personalised federated SAM"
    assert not any(module.training for module in model.modules())


def clicking(model: PersonalisedModel) -> bool:
    return "point" in model.prompt_kinds


@pytest.mark.parametrize("method", list(METHODS))
def test_clicks_are_understood_once_parameters_that_learnt_them_are_loaded(
    personalise, method: str
) -> None:
    built = personalise(method=method)
    assert not clicking(built)
    built.load_shared(built.shared_state())
    assert clicking(built)


@pytest.mark.parametrize(
    ("options", "prompts", "understood"),
    [
        (MethodOptions(decoder="frozen"), PromptShares(), False),
        (MethodOptions(decoder="lora"), PromptShares(), True),
        (MethodOptions(decoder="local"), PromptShares(), True),
        (MethodOptions(), PromptShares(none=0.5, box=0.5, click=0.0), False),
    ],
)
def test_clicks_are_learnt_only_by_a_decoder_that_is_trained_on_them(
    personalise, options, prompts, understood: bool
) -> None:
    built = personalise(options=options, training=TrainingOptions(prompts=prompts))
    built.load_shared(built.shared_state())
    assert clicking(built) == understood


def test_a_base_model_that_knows_clicks_keeps_them(outline) -> None:
    model = outline("vit_b", options=MethodOptions(decoder="frozen"))
    assert model.prompt_kinds == {"none", "point", "box"}


def perturbed(model: PersonalisedModel, owner: str) -> PersonalisedModel:
    with torch.no_grad():
        for parameter in model.parameters_of(owner).values():  # type: ignore[arg-type]
            parameter.add_(0.05)
    model.eval()
    return model


def test_the_global_view_leaves_the_experts_out(personalise, encode, base_features) -> None:
    built = perturbed(personalise(), "local")
    with torch.no_grad():
        mine = encode(built)
        with built.global_view():
            assert torch.equal(encode(built), base_features)
            with built.global_view():
                pass
            assert torch.equal(encode(built), base_features)
        assert torch.equal(encode(built), mine)
    assert not torch.allclose(mine, base_features)


def test_shared_experts_belong_to_the_global_view(personalise, encode) -> None:
    built = personalise(options=MethodOptions(expert_owner="shared"))
    perturbed(built, "shared")
    with torch.no_grad():
        mine = encode(built)
        with built.global_view():
            assert torch.equal(encode(built), mine)


def test_the_personal_view_comes_back_after_an_error(personalise, encode) -> None:
    built = perturbed(personalise(options=MethodOptions(personal_decoder=True)), "local")
    with torch.no_grad():
        mine = encode(built)
    decoder = [id(p) for p in built.mask_decoder.parameters()]

    def fail() -> None:
        with built.global_view():
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with torch.no_grad():
        assert torch.equal(encode(built), mine)
    assert [id(p) for p in built.mask_decoder.parameters()] == decoder


def test_a_personal_decoder_answers_and_the_global_view_has_the_shared_one(
    personalise, base, base_features
) -> None:
    built = personalise(options=MethodOptions(personal_decoder=True))
    with torch.no_grad():
        for _, own in built.copies():
            own.add_(0.01)
        mine, _ = decode(built, base_features, boxes=BOX)
        theirs, _ = decode(base, base_features, boxes=BOX)
        assert not torch.allclose(mine, theirs)
        with built.global_view():
            same_masks(built, base, base_features)


def test_the_experts_imbalance_is_their_mean_over_the_blocks(personalise, encode) -> None:
    built = personalise()
    assert built.expert_imbalance() is None
    encode(built)
    parts = [m.imbalance for m in built.modules() if isinstance(m, MixtureOfExperts)]
    assert len(parts) == 2
    assert torch.equal(built.expert_imbalance(), (parts[0] + parts[1]) / 2)
    with built.global_view():
        encode(built)
        assert built.expert_imbalance() is None


@pytest.mark.parametrize("method", ["lora_fedavg", "fedmsa"])
def test_without_experts_there_is_no_imbalance(personalise, encode, method: str) -> None:
    built = personalise(method=method)
    encode(built)
    assert built.expert_imbalance() is None


@pytest.mark.parametrize(("method", "read_anew"), [("fedsam", True), ("pfedsam", False)])
def test_attention_biases_are_read_at_every_step_where_they_learn(
    personalise, encode, method: str, read_anew: bool
) -> None:
    built = personalise(method=method)
    attention = transformer_blocks(built.image_encoder)[-1].attn
    with torch.no_grad():
        before = encode(built)
        with built.attention_biases_in_training():
            attention.attention_biases.add_(torch.randn_like(attention.attention_biases))
            assert torch.allclose(encode(built), before) != read_anew
            # Frozen batch norms must not move.
            assert not any(
                m.training for m in built.modules() if isinstance(m, torch.nn.BatchNorm2d)
            )
    assert not any(module.training for module in built.modules())


def test_states_are_copies_of_what_is_owned(personalise) -> None:
    built = personalise()
    for owner, state in (("shared", built.shared_state()), ("local", built.local_state())):
        assert state.keys() == built.parameters_of(owner).keys()
        for value in state.values():
            assert value.dtype == torch.float32
            assert not value.requires_grad
            value.fill_(123.0)
        assert not any((p == 123.0).any() for p in built.parameters_of(owner).values())
    assert not built.shared_state().keys() & built.local_state().keys()


def test_the_spec_lists_the_shared_names_shapes_and_types(model) -> None:
    spec = model.shared_spec()
    state = model.shared_state()
    assert spec == {name: (tuple(value.shape), "float32") for name, value in state.items()}
    assert spec["structure_embeddings.weight"] == ((2, 256), "float32")


def test_what_is_saved_is_loaded(personalise) -> None:
    source, target = personalise(), personalise()
    source.load_shared({k: torch.randn_like(v) for k, v in source.shared_state().items()})
    source.load_local({k: torch.randn_like(v) for k, v in source.local_state().items()})
    frozen = {k: v.clone() for k, v in target.parameters_of("frozen").items()}
    assert target.load_shared(source.shared_state()) is target
    assert same(source.shared_state(), target.shared_state())
    assert not same(source.local_state(), target.local_state())
    target.load_local(source.local_state())
    assert same(source.local_state(), target.local_state())
    assert same(frozen, target.parameters_of("frozen"))


def broken(state: dict[str, torch.Tensor], how: str) -> dict[str, torch.Tensor]:
    last = list(state)[-1]
    value = state[last]
    state = {name: torch.full_like(tensor, 5.0) for name, tensor in state.items()}
    if how == "missing":
        del state[last]
    elif how == "unknown":
        state["image_encoder.surprise"] = value
    elif how == "renamed":
        state["x" + last] = state.pop(last)
    elif how == "shape":
        state[last] = torch.zeros(*value.shape, 1)
    elif how == "float64":
        state[last] = value.double()
    elif how == "bfloat16":
        state[last] = value.bfloat16()
    else:
        state[last] = torch.full_like(value, float(how))
    return state


@pytest.mark.parametrize("owner", ["shared", "local"])
@pytest.mark.parametrize(
    "how", ["missing", "unknown", "renamed", "shape", "float64", "bfloat16", "nan", "inf", "-inf"]
)
def test_wrong_parameters_are_refused_and_none_is_loaded(model, owner: str, how: str) -> None:
    read = getattr(model, f"{owner}_state")
    load = getattr(model, f"load_{owner}")
    before = read()
    with pytest.raises(ParameterError, match=f"{owner} parameter"):
        load(broken(read(), how))
    assert same(before, read())


def test_the_other_owners_parameters_are_refused(model) -> None:
    with pytest.raises(ParameterError, match="belong to another recipe"):
        model.load_shared(model.local_state())
    with pytest.raises(ParameterError, match="belong to another recipe"):
        model.load_local(model.shared_state())


def test_loaded_attention_biases_are_used_at_once(personalise) -> None:
    built = personalise(method="fedsam")
    state = built.shared_state()
    for name in state:
        if name.endswith("attention_biases"):
            state[name] += 1.5
    built.load_shared(state)
    attentions = [m for m in built.modules() if hasattr(m, "attention_biases")]
    assert attentions
    for attention in attentions:
        expected = attention.attention_biases[:, attention.attention_bias_idxs]
        assert torch.equal(attention.ab, expected)


def test_the_same_seed_gives_the_same_parameters(make_recipe) -> None:
    torch.manual_seed(11)
    one = build_personalised_model(make_recipe())
    next_number = torch.rand(1)
    torch.manual_seed(99)
    two = build_personalised_model(make_recipe())
    assert same(one.state_dict(), two.state_dict())
    torch.manual_seed(11)
    assert torch.equal(torch.rand(1), next_number), "the caller's random state was moved"


def test_another_seed_gives_other_modules(make_recipe) -> None:
    one, two = (build_personalised_model(make_recipe(seed=seed)) for seed in (0, 1))
    assert not torch.equal(one.structure_embeddings.weight, two.structure_embeddings.weight)
    lora = next(name for name in one.shared_state() if name.endswith("lora_a"))
    assert not torch.equal(one.shared_state()[lora], two.shared_state()[lora])


def test_structures_have_tokens(model) -> None:
    weight = model.structure_embeddings.weight
    one = model.structure_tokens(7, 3)
    assert one.shape == (3, 1, 256)
    assert all(torch.equal(token[0], weight[1]) for token in one)
    mixed = model.structure_tokens([3, 7], 2)
    assert torch.equal(mixed[:, 0], weight)
    assert torch.equal(model.structure_tokens((7, 3), 2)[:, 0], weight.flip(0))


@pytest.mark.parametrize("structure", [None, 5, [3, 5], [5, 5]])
def test_an_unknown_structure_has_no_token(model, structure) -> None:
    assert model.structure_tokens(structure, 2).shape == (2, 0, 256)


def test_the_stages_lead_through_the_inserted_modules(personalise, pixels) -> None:
    built = personalise(options=MethodOptions(blocks=1))
    built.load_local({k: torch.full_like(v, 0.05) for k, v in built.local_state().items()})
    with torch.no_grad():
        x = pixels
        for stage in built.encoder_stages():
            x = stage(x)
        assert torch.equal(x, built.image_encoder(pixels))
