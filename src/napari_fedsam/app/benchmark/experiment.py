"""What a federated benchmark runs: methods with their options, on tasks, under a protocol."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_fedsam.personalization import RecipeError
from napari_fedsam.personalization.methods import METHODS, method_named
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.training.segmentation_task import structures_of

Protocol = Literal["in_federation", "unseen_site"]


class Variant(BaseModel):
    """A method under a name of its own, with changed options.

    Attributes
    ----------
    method : str
        By default the variant's name.
    options, training, federation : dict
        Changes to the recipe's sections.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str | None = None
    options: dict[str, Any] = {}
    training: dict[str, Any] = {}
    federation: dict[str, Any] = {}


class ExperimentConfig(BaseModel):
    """Changes to the default recipe: for all methods, and for each.

    Attributes
    ----------
    training : dict
        Changes for all methods.
    tasks : dict
        Further changes by task.
    methods : dict
        Variants by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: dict[str, Any] = {}
    tasks: dict[str, dict[str, Any]] = {}
    methods: dict[str, Variant] = {}

    @classmethod
    def read(cls, path: Path | None) -> "ExperimentConfig":
        """Read a configuration; the defaults without a file.

        Raises
        ------
        RecipeError
            When the file is no configuration.
        """
        if path is None:
            return cls()
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise RecipeError(
                f"The configuration {path} cannot be read: {error.strerror}."
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the file"
            raise RecipeError(
                f"The configuration {path} is wrong at {field}: {first['msg']}."
            ) from error


class Run(BaseModel):
    """A method on a task's sites with a seed.

    Attributes
    ----------
    task, method : str
        The method's name or a variant's.
    protocol : {"in_federation", "unseen_site"}
    unseen : str
        The site that is left out of training; empty in the federation.
    seed : int
    train_images : int or None
        At most so many training images at a site.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    method: str
    protocol: Protocol = "in_federation"
    unseen: str = ""
    seed: int = 0
    train_images: int | None = Field(default=None, ge=1)

    @property
    def name(self) -> str:
        """What tells it from all others in a benchmark, fit for a file's name."""
        without = f"-without-{self.unseen}" if self.unseen else ""
        return f"{self.task}-{self.method}{without}-seed{self.seed}"


class TrainedRun(Run):
    """One training.

    Attributes
    ----------
    recipe : Recipe
    """

    recipe: Recipe


def recipe_for(
    method: str,
    task: str,
    config: ExperimentConfig,
    *,
    rounds: int,
    seed: int,
) -> Recipe:
    """Return the recipe of a method or variant on a task.

    Raises
    ------
    RecipeError
        For an unknown name, or options that do not fit.
    """
    variant = config.methods.get(method, Variant())
    name = variant.method or method
    if name not in METHODS:
        known = ", ".join([*METHODS, *config.methods])
        raise RecipeError(f"There is no method named '{name}': choose from {known}.")
    structures = [part.structure for part in structures_of(task)]
    training = {**config.training, **config.tasks.get(task, {}), **variant.training}
    content = {
        "name": task,
        "method": name,
        "structures": [json.loads(structure.model_dump_json()) for structure in structures],
        "options": variant.options,
        "training": training,
        "federation": variant.federation,
        "rounds": rounds,
        "seed": seed,
    }
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise RecipeError(
            f"The options of {method} are wrong at {field}: {first['msg']}"
        ) from error


def check_protocol(protocol: Protocol, recipe: Recipe) -> None:
    """Refuse to ask for the model of a site that took no part where there is none.

    Raises
    ------
    RecipeError
        For a method that makes an average for each site by itself.
    """
    if protocol == "unseen_site" and method_named(recipe.method).aggregation == "similarity":
        raise RecipeError(
            f"The method {recipe.method} makes a model for each site that takes part and none for "
            "others: leave it out, or choose the protocol in_federation."
        )
