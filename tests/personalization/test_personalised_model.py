"""The personalised model: step 0, its parameters in and out, its structures' tokens."""

import numpy as np
import pytest
import torch

from napari_fedsam.personalization import (
    MethodOptions,
    ParameterError,
    PersonalisedModel,
    build_personalised_model,
)
from napari_fedsam.personalization.methods import METHODS
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
def base_features(base, pixels) -> torch.Tensor:
    with torch.no_grad():
        features: torch.Tensor = base.image_encoder(pixels)
    return features


@pytest.mark.parametrize("method", list(METHODS))
def test_at_step_zero_the_encoder_is_the_bases(personalise, pixels, base_features, method) -> None:
    built = personalise(method=method)
    with torch.no_grad():
        assert torch.equal(built.image_encoder(pixels), base_features)


def test_inserted_modules_answer_once_they_are_trained(personalise, pixels, base_features) -> None:
    built = personalise()
    built.load_local({k: torch.full_like(v, 0.05) for k, v in built.local_state().items()})
    with torch.no_grad():
        assert not torch.allclose(built.image_encoder(pixels), base_features)


def test_it_is_a_promptable_model_that_also_proposes(model, base) -> None:
    assert isinstance(model, PromptableModel)
    assert model.prompt_kinds == base.prompt_kinds | {"none"}
    assert model.input_size == base.input_size
    assert model.name == "lite_medsam, Personalised federated SAM"
    assert not any(module.training for module in model.modules())


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
    assert not torch.equal(one.get_parameter(lora), two.get_parameter(lora))


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
