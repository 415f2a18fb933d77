"""A recipe's hash is what both ends compare."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from napari_fedsam.cases.case import Structure
from napari_fedsam.personalization import (
    MethodOptions,
    PromptShares,
    Recipe,
    RecipeError,
    TrainingOptions,
)


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the paths of all that can be changed on its own in nested JSON."""
    if path and path[-1] in ("lora_targets", "prompts", "federation"):
        return [path]
    if isinstance(value, dict):
        return [leaf for key in value for leaf in leaves(value[key], (*path, key))]
    if isinstance(value, list):
        return [leaf for i, item in enumerate(value) for leaf in leaves(item, (*path, i))]
    return [path]


# Other values where one more, or one letter more, would be refused; of shares, all at once.
OTHER = {
    "gate": "token",
    "expert_blocks": 1,
    "decoder": "local",
    "color": "#0000ff",
    "method": "lora_fedavg",
    "box_jitter": 0.25,
    "local_share": 0.25,
    "value": 9,
    "lora_targets": ["k", "v"],
    "schedule": "decoupled",
    "expert_owner": "shared",
    "personal_decoder": True,
    "structure_tokens": "local",
    "prompts": {"none": 0.5, "box": 0.3, "click": 0.2},
    # Each of its options: see test_federation_options.
    "federation": {"norm_limit": 5.0},
}
# In the plain method they are of no use.
METHOD_OF = {"proximal": "ditto"}
PARTS = {"name": "Polyps", "structures": [{"value": 3, "name": "polyp", "color": "#ff0000"}]}
FULL = Recipe.model_validate(PARTS).model_dump(mode="json")


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    parts = json.loads(json.dumps(FULL))
    place = parts
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return parts  # type: ignore[no-any-return]


@pytest.mark.parametrize("path", leaves(FULL), ids=lambda path: ".".join(map(str, path)))
def test_any_change_changes_the_hash(path: tuple[str | int, ...]) -> None:
    before = FULL
    for key in path:
        before = before[key]  # type: ignore[index,assignment]
    after = OTHER.get(str(path[-1]))
    if after is None:
        after = f"{before}x" if isinstance(before, str) else before + 1  # type: ignore[operator]
    parts = changed(path, after)
    plain = dict(FULL)
    if path[-1] in METHOD_OF:
        plain["method"] = parts["method"] = METHOD_OF[str(path[-1])]
    assert Recipe.model_validate(parts).hash != Recipe.model_validate(plain).hash


@pytest.mark.parametrize("share", ["none", "box", "click"])
def test_every_prompts_share_changes_the_hash(share: str) -> None:
    one = {"none": 0.25, "box": 0.25, "click": 0.25} | {share: 0.5}
    recipe = Recipe.model_validate(changed(("training", "prompts"), one))
    assert recipe.training.prompts == PromptShares(**one)
    assert recipe.hash != Recipe.model_validate(FULL).hash


def test_another_structure_changes_the_hash() -> None:
    other = FULL["structures"][0] | {"value": 4, "name": "spleen"}
    parts = {**FULL, "structures": [*FULL["structures"], other]}
    assert Recipe.model_validate(parts).hash != Recipe.model_validate(FULL).hash


def test_the_hash_depends_on_no_order_and_no_spelling_of_defaults() -> None:
    backwards = {
        key: dict(reversed(value.items())) if isinstance(value, dict) else value
        for key, value in reversed(FULL.items())
    }
    assert list(backwards) != list(FULL)
    hashes = {
        Recipe.model_validate(PARTS).hash,
        Recipe.model_validate(backwards).hash,
        Recipe.model_validate(FULL).hash,
        Recipe(
            name="Polyps",
            structures=(Structure(value=3, name="polyp", color="#FF0000"),),
            training=TrainingOptions(epochs=6.0, prompts=PromptShares(none=0.6)),
            options=MethodOptions(lora_alpha=32),
        ).hash,
    }
    assert len(hashes) == 1
    assert len(hashes.pop()) == 64


def test_the_hash_is_the_same_in_every_version_of_the_package() -> None:
    # Sites with different versions must agree: a new field with a default is a new recipe.
    assert (
        Recipe.model_validate(PARTS).hash
        == "36db7492153f872a2cfeaf3110ff76824e659cd653d79bb2bd2bc9e1ece4cfed"
    )


def test_what_is_written_is_read_back(tmp_path: Path, make_recipe) -> None:
    recipe = make_recipe(
        name="Früherkennung",
        options=MethodOptions(
            blocks=3, lora_alpha=4, distillation=0.1, lora_targets=("k",), personal_decoder=True
        ),
        training=TrainingOptions(
            epochs=0.5, learning_rate=1e-3, prompts=PromptShares(none=0.2, box=0.5, click=0.3)
        ),
        rounds=3,
    )
    recipe.write(tmp_path / "recipe.json")
    again = Recipe.read(tmp_path / "recipe.json")
    assert again == recipe
    assert again.hash == recipe.hash


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("name",), ""),
        (("name",), "x" * 81),
        (("structures",), []),
        (("structures",), [FULL["structures"][0]] * 2),
        (("structures", 0, "value"), 0),
        (("structures", 0, "value"), 256),
        (("structures", 0, "color"), "red"),
        (("options", "blocks"), 0),
        (("options", "lora_rank"), 0),
        (("options", "lora_alpha"), 0),
        (("options", "top_k"), 5),
        (("options", "gate"), "pixel"),
        (("options", "decoder"), "mine"),
        (("options", "temperature"), 0),
        (("options", "distillation"), -0.1),
        (("training", "epochs"), 0),
        (("training", "local_share"), -0.1),
        (("training", "local_share"), 1.0),
        (("training", "local_epochs"), 1),
        (("training", "learning_rate"), 0),
        (("training", "learning_rate"), math.inf),
        (("training", "epochs"), math.nan),
        (("training", "batch_size"), 0),
        (("training", "prompts", "none"), 1.1),
        (("training", "prompts", "click"), -0.1),
        (("training", "prompts"), {"none": 0.5, "box": 0.2, "click": 0.2}),
        (("training", "prompts"), {"none": 1.0}),
        (("training", "prompts", "point"), 0.2),
        (("options", "lora_targets"), []),
        (("options", "lora_targets"), ["q", "o"]),
        (("options", "lora_targets"), ["q", "q"]),
        (("options", "expert_owner"), "frozen"),
        (("options", "load_balance"), -1),
        (("options", "structure_tokens"), "frozen"),
        (("options", "proximal"), -0.1),
        (("options", "proximal"), 0.1),
        (("rounds",), 0),
        (("rounds",), 1.5),
        (("training", "box_jitter"), -0.1),
        (("training", "augmentations"), -1),
        (("minimum_sites",), 0),
        (("minimum_cases",), 0),
        (("seed",), 1.5),
        (("seed",), 2**63),
        (("surprise",), 1),
        (("options", "surprise"), 1),
        (("training", "surprise"), 1),
    ],
)
def test_a_bad_recipe_is_refused_naming_file_and_field(tmp_path, path, value) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(changed(path, value)), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"recipe\.json is wrong at ") as caught:
        Recipe.read(file)
    assert str(path[-1]) in str(caught.value) or path == ("structures",)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"value": 3, "name": "spleen"}, "two structures have the same value: give each its own"),
        ({"value": 4, "name": "Polyp"}, "two structures have the same name, in upper or lower"),
    ],
)
def test_two_structures_differ_in_value_and_name(make_recipe, other, said) -> None:
    polyp = Structure(value=3, name="polyp", color="#ff0000")
    with pytest.raises(ValueError, match=said):
        make_recipe(structures=(polyp, polyp.model_copy(update=other)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"experts": 2, "top_k": 3}, "top_k is 3 but there are only 2 experts: lower top_k"),
        ({"expert_blocks": 3}, "expert_blocks is 3 but only 2 blocks carry modules"),
        ({"lora_targets": ("v", "q", "v")}, "lora_targets names a projection twice"),
        ({"personal_decoder": True, "decoder": "frozen"}, "decoder is frozen: change one"),
        ({"personal_decoder": True, "decoder": "local"}, "decoder is local: change one"),
        ({"experts": 0, "expert_width": 5}, "expert_width has no use where experts is 0: leave"),
        ({"experts": 0, "expert_blocks": 1}, "expert_blocks has no use where experts is 0"),
        ({"experts": 0, "top_k": 7}, "top_k has no use where experts is 0"),
        ({"experts": 0, "gate": "token"}, "gate has no use where experts is 0"),
        ({"experts": 0, "expert_owner": "shared"}, "expert_owner has no use where experts is 0"),
        ({"experts": 0, "load_balance": 9}, "load_balance has no use where experts is 0"),
        ({"distillation": 0, "temperature": 9}, "temperature has no use where distillation is 0"),
    ],
)
def test_contradictory_options_are_refused_with_a_remedy(options, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MethodOptions(**options)


@pytest.mark.parametrize("experts", [{"experts": 0}, {"expert_owner": "shared"}])
def test_personalised_sam_keeps_something_at_the_site(make_recipe, experts) -> None:
    with pytest.raises(ValueError, match="nothing of the method pfedsam would stay at a site"):
        make_recipe(options=MethodOptions(detail_width=0, **experts))
    for own in ({}, {"structure_tokens": "local"}, {"decoder": "local"}):
        options = MethodOptions(detail_width=0 if own else 16, **experts, **own)
        assert make_recipe(options=options).options == options


@pytest.mark.parametrize("decoder", ["shared", "lora"])
def test_a_personal_decoder_goes_with_one_that_is_sent(decoder) -> None:
    assert MethodOptions(personal_decoder=True, decoder=decoder).personal_decoder


def test_a_file_with_an_option_of_no_use_is_refused_by_its_name(tmp_path: Path) -> None:
    parts = changed(("options", "distillation"), 0.1) | {"method": "fedsam"}
    (tmp_path / "recipe.json").write_text(json.dumps(parts), encoding="utf-8")
    with pytest.raises(RecipeError, match="fedsam has no use for the option distillation: leave"):
        Recipe.read(tmp_path / "recipe.json")


def test_a_file_with_an_unknown_method_is_refused_by_its_name(tmp_path: Path) -> None:
    parts = changed(("options", "distillation"), 0.1) | {"method": "magic"}
    (tmp_path / "recipe.json").write_text(json.dumps(parts), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"recipe\.json is wrong at method: There is no method"):
        Recipe.read(tmp_path / "recipe.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe{}", b'{"name": "x"}'])
def test_what_is_no_recipe_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "recipe.json").write_bytes(content)
    with pytest.raises(RecipeError, match=r"recipe\.json is wrong at"):
        Recipe.read(tmp_path / "recipe.json")


def test_a_missing_recipe_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"gone\.json cannot be read"):
        Recipe.read(tmp_path / "gone.json")


def test_a_recipe_cannot_be_changed(make_recipe) -> None:
    with pytest.raises(ValueError, match="frozen"):
        make_recipe().seed = 4
