"""What a process keeps from message to message holds nothing of the site before."""

import pytest
import torch

from napari_fedsam.personalization.personalised_model import build_personalised_model
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.training.kept_models import KeptModels

STRUCTURE = {"value": 1, "name": "disc", "color": "#ff0000"}


def recipe_of(method, **options):
    return Recipe(name="x", method=method, structures=[STRUCTURE], options={"blocks": 1, **options})


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("lora_fedavg", {}),
        ("pfedsam", {}),
        ("pfedsam", {"personal_decoder": True}),
        ("ditto", {}),
        ("local_norm", {}),
    ],
)
def test_nothing_is_left_of_what_was_trained_before(method, options):
    recipe = recipe_of(method, **options)
    kept = KeptModels()
    model = kept.untrained(recipe)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 1
    model.load_shared({name: value + 1 for name, value in model.shared_state().items()})
    model.load_local({name: value + 1 for name, value in model.local_state().items()})
    assert kept.untrained(recipe) is model
    fresh = dict(build_personalised_model(recipe).named_parameters())
    now = dict(model.named_parameters())
    assert now.keys() == fresh.keys()
    assert all(torch.equal(now[name], fresh[name]) for name in fresh)


def test_another_recipe_gets_another_model():
    kept = KeptModels()
    first = kept.untrained(recipe_of("lora_fedavg"))
    second = kept.untrained(recipe_of("pfedsam"))
    assert second.method.name == "pfedsam"
    assert kept.untrained(recipe_of("lora_fedavg")) is not first


def test_a_base_model_is_loaded_once():
    kept = KeptModels()
    assert kept.base("lite_medsam") is kept.base("lite_medsam")
