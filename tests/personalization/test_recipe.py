"""A recipe's hash is what both ends compare."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from napari_fedsam.cases.case import Structure
from napari_fedsam.personalization import MethodOptions, Recipe, RecipeError, TrainingOptions


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the paths of all scalars in nested JSON."""
    if isinstance(value, dict):
        return [leaf for key in value for leaf in leaves(value[key], (*path, key))]
    if isinstance(value, list):
        return [leaf for i, item in enumerate(value) for leaf in leaves(item, (*path, i))]
    return [path]


OTHER = {
    "gate": "token",
    "decoder": "local",
    "color": "#0000ff",
    "method": "lora_fedavg",
    "proposal_weight": 0.25,
    "box_jitter": 0.25,
    "value": 9,
}
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
    assert Recipe.model_validate(changed(path, after)).hash != Recipe.model_validate(FULL).hash


def test_another_structure_changes_the_hash() -> None:
    parts = {**FULL, "structures": [*FULL["structures"], {**FULL["structures"][0], "value": 4}]}
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
            training=TrainingOptions(epochs=4.0),
            options=MethodOptions(lora_alpha=8),
        ).hash,
    }
    assert len(hashes) == 1
    assert len(hashes.pop()) == 64


def test_the_hash_is_the_same_in_every_version_of_the_package() -> None:
    # Sites with different versions must agree: a new field with a default is a new recipe.
    assert (
        Recipe.model_validate(PARTS).hash
        == "d5d5c415ea142cb41cefacdef6339adaf20a2516058eb29ea090e29ad0837f53"
    )


def test_what_is_written_is_read_back(tmp_path: Path, make_recipe) -> None:
    recipe = make_recipe(
        name="Früherkennung",
        options=MethodOptions(blocks=3, lora_alpha=4, distillation=0.1),
        training=TrainingOptions(epochs=0.5, learning_rate=1e-3),
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
        (("training", "local_epochs"), -1),
        (("training", "learning_rate"), 0),
        (("training", "learning_rate"), math.inf),
        (("training", "epochs"), math.nan),
        (("training", "batch_size"), 0),
        (("training", "proposal_weight"), 1.1),
        (("training", "box_jitter"), -0.1),
        (("training", "augmentations"), -1),
        (("minimum_sites",), 0),
        (("minimum_cases",), 0),
        (("seed",), 1.5),
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
    # A rule over several fields is told for their group; of all others the field is named.
    if value not in (5,) and path != ("structures",):
        assert str(path[-1]) in str(caught.value)
    assert "\n" not in str(caught.value)


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
