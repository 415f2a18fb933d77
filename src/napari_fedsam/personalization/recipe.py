"""The recipe: what every site of a federation has agreed on, hashed.

A recipe names the base model, the method with its options, the structures, and how a site trains.
Both ends compare its hash and refuse to work under different ones.
"""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_fedsam.cases.case import Structure
from napari_fedsam.files import write_text_atomically
from napari_fedsam.personalization.errors import RecipeError

Owner = Literal["frozen", "shared", "local"]
_Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MethodOptions(_Options):
    """Options of the inserted modules.

    Attributes
    ----------
    blocks : int
        How many of the encoder's last transformer blocks carry inserted modules. The blocks
        before them are frozen, so that their output is computed once per image.
    lora_rank, lora_alpha : int, float
        Rank r and scale alpha / r of the low-rank updates of the queries and values
        (Hu et al. 2022, LoRA).
    experts, expert_width, top_k : int
        Number of bottleneck experts, their hidden width, and how many answer (the rest of the
        softmax gate is cut off).
    gate : {"image", "token"}
        Whether the gate decides once per image or for every token.
    decoder : {"frozen", "shared", "local"}
        Who owns the mask decoder.
    temperature, distillation : float
        T and alpha of the distillation term alpha * T^2 * KL(teacher || student).
    """

    blocks: int = Field(default=2, ge=1)
    lora_rank: int = Field(default=8, ge=1)
    lora_alpha: float = Field(default=8.0, gt=0)
    experts: int = Field(default=4, ge=1)
    expert_width: int = Field(default=32, ge=1)
    top_k: int = Field(default=2, ge=1)
    gate: Literal["image", "token"] = "image"
    decoder: Owner = "shared"
    temperature: float = Field(default=2.0, gt=0)
    distillation: float = Field(default=0.5, ge=0)

    @model_validator(mode="after")
    def _check_top_k(self) -> Self:
        if self.top_k > self.experts:
            raise ValueError(
                f"top_k is {self.top_k} but there are only {self.experts} experts: lower top_k"
            )
        return self


class TrainingOptions(_Options):
    """How a site trains in one round.

    Attributes
    ----------
    epochs : float
        Passes over the site's training cases per round, in the shared phase.
    local_epochs : float
        Passes in the local phase of a method that has one.
    learning_rate : float
        Peak of AdamW's learning rate (short warm-up, then cosine).
    batch_size : int
        Cases per step.
    proposal_weight : float in 0..1
        Weight of the no-prompt loss; the box-prompt loss has the rest.
    box_jitter : float in 0..1
        Largest shift of a simulated box's edge, as a fraction of the box's side.
    augmentations : int
        Cached variants per case beside the original (flips and contrast).
    """

    epochs: float = Field(default=4, gt=0)
    local_epochs: float = Field(default=2, ge=0)
    learning_rate: float = Field(default=5e-4, gt=0)
    batch_size: int = Field(default=4, ge=1)
    proposal_weight: _Share = 0.6
    box_jitter: _Share = 0.1
    augmentations: int = Field(default=1, ge=0)


class Recipe(_Options):
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
        With distinct values.
    options : MethodOptions
    training : TrainingOptions
    minimum_sites : int
        Sites that must reply before a round counts.
    minimum_cases : int
        Training cases that a site needs before it takes part in a round.
    seed : int
        Seed of the inserted modules and of every site's sampling.
    """

    name: str = Field(min_length=1, max_length=80)
    base_model: str = "lite_medsam"
    method: str = "pfedsam"
    structures: tuple[Structure, ...] = Field(min_length=1)
    options: MethodOptions = MethodOptions()
    training: TrainingOptions = TrainingOptions()
    minimum_sites: int = Field(default=2, ge=1)
    minimum_cases: int = Field(default=1, ge=1)
    seed: int = 0

    @model_validator(mode="after")
    def _check_structures(self) -> Self:
        values = [structure.value for structure in self.structures]
        if len(set(values)) != len(values):
            raise ValueError("two structures have the same value: give each its own")
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
            raise RecipeError(f"The recipe {path} cannot be read: {error.strerror}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the file"
            raise RecipeError(f"The recipe {path} is wrong at {field}: {first['msg']}.") from error

    def write(self, path: Path) -> None:
        """Write the recipe as indented JSON, in one step."""
        write_text_atomically(path, self.model_dump_json(indent=2) + "\n")
