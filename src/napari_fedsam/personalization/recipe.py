"""The recipe: what every site of a federation has agreed on, hashed.

A recipe names the base model, the method with its options, the structures, and how a site trains.
Both ends compare its hash and refuse to work under different ones.
"""

import hashlib
import json
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from napari_fedsam.cases.case import Structure
from napari_fedsam.files import write_text_atomically
from napari_fedsam.personalization.errors import RecipeError
from napari_fedsam.personalization.federation_options import FederationOptions
from napari_fedsam.personalization.method_options import MethodOptions, Options, Share
from napari_fedsam.personalization.methods import method_named


class PromptShares(Options):
    """How often training asks without a prompt, with a box, and with clicks.

    Attributes
    ----------
    none, box, click : float in 0..1
        The weights of the losses; they sum to 1.
    """

    none: Share = 0.6
    box: Share = 0.2
    click: Share = 0.2

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        if abs(self.none + self.box + self.click - 1) > 1e-6:
            raise ValueError("none, box and click must sum to 1")
        return self


class TrainingOptions(Options):
    """How a site trains in one round.

    Attributes
    ----------
    epochs : float
        Passes over the site's training images per round, all phases together.
    local_share : float from 0 to below 1
        The share of the passes that goes to local parameters alone, in methods with such phases;
        the rest, which is sent, is never nothing.
    learning_rate : float
        Peak of AdamW's learning rate (short warm-up, then cosine) in the first round; later
        rounds start lower, along half a cosine to a tenth over the recipe's rounds; fine-tuning
        after the last round starts at half of it. Phases of fewer than 20 steps have a lower peak,
        in proportion to their steps.
    inserted_rate : float
        How many times faster inserted modules and structure tokens learn, which begin untrained.
    batch_size : int
        Images per step. One, for sites have few cases: a pass over them then has the most steps.
    prompts : PromptShares
    box_jitter : float from 0 to below 0.5
        Largest shift of a simulated box's edge, as a fraction of the box's side.
    augmentations : int
        Cached variants per image beside the original (flips and contrast).
    """

    epochs: float = Field(default=6, gt=0)
    local_share: float = Field(default=0.15, ge=0, lt=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    inserted_rate: float = Field(default=4, gt=0)
    batch_size: int = Field(default=1, ge=1)
    prompts: PromptShares = PromptShares()
    box_jitter: float = Field(default=0.1, ge=0, lt=0.5)
    augmentations: int = Field(default=1, ge=0)


class Recipe(Options):
    """What every site has agreed on.

    Attributes
    ----------
    name : str
        The federation's task in words.
    base_model : str
        A name of the model registry.
    method : str
        A name of `methods.METHODS`.
    structures : tuple of Structure
        With distinct values, and names that differ by more than upper and lower case: cases
        train by name.
    options : MethodOptions
    training : TrainingOptions
    rounds : int
        Rounds that the federation means to run; the learning rate falls over them.
    minimum_sites : int
        Sites that must reply before a round counts.
    minimum_cases : int
        Training cases that a site needs before it takes part in a round.
    federation : FederationOptions
        How updates are combined and checked.
    seed : int
        Not negative, below 2**63. Seed of the inserted modules and of every site's sampling.
    """

    name: str = Field(min_length=1, max_length=80)
    base_model: str = "lite_medsam"
    method: str = "pfedsam"
    structures: tuple[Structure, ...] = Field(min_length=1)
    options: MethodOptions = MethodOptions()
    training: TrainingOptions = TrainingOptions()
    rounds: int = Field(default=10, ge=1)
    minimum_sites: int = Field(default=2, ge=1)
    minimum_cases: int = Field(default=1, ge=1)
    federation: FederationOptions = FederationOptions()
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _check_structures(self) -> Self:
        values = [structure.value for structure in self.structures]
        if len(set(values)) != len(values):
            raise ValueError("two structures have the same value: give each its own")
        names = [structure.name.casefold() for structure in self.structures]
        if len(set(names)) != len(names):
            raise ValueError(
                "two structures have the same name, in upper or lower case: leave one out"
            )
        return self

    @model_validator(mode="after")
    def _check_method(self) -> Self:
        method_named(self.method).check_options(self.options)
        return self

    @model_validator(mode="after")
    def _check_federation(self) -> Self:
        self.federation.check_sites(self.minimum_sites)
        if method_named(self.method).aggregation == "average":
            return self
        usual = FederationOptions()
        for name in ("aggregation", "extrapolation", "privacy"):
            if getattr(self.federation, name) != getattr(usual, name):
                raise ValueError(
                    f"the method {self.method} makes an average for each site by itself: leave "
                    f"federation.{name} out"
                )
        return self

    @property
    def hash(self) -> str:
        """SHA-256 of the recipe's canonical JSON (sorted keys, no spaces)."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a recipe file.

        Raises
        ------
        RecipeError
            Naming the file and the first field that is wrong.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise RecipeError(
                f"The recipe {path} cannot be read ({error.strerror}): look at the file and its "
                "rights."
            ) from error
        except RecipeError as error:
            raise RecipeError(f"The recipe {path} is wrong at method: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the file"
            raise RecipeError(f"The recipe {path} is wrong at {field}: {first['msg']}.") from error

    def write(self, path: Path) -> None:
        """Write the recipe as indented JSON, in one step."""
        write_text_atomically(path, self.model_dump_json(indent=2) + "\n")
