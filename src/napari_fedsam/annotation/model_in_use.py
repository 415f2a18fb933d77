"""Which model answers: a base model, or this site's personalised one."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.cases.case import Structure
from napari_fedsam.sam.embedding_store import EmbeddingStore
from napari_fedsam.sam.prediction import ImageEmbedding
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.sam.stored_encoding import encode_stored


@dataclass(frozen=True, eq=False)
class ModelInUse:
    """A loaded model with what people are told of it.

    Attributes
    ----------
    predictor : Predictor
        The model, ready to encode and predict.
    name : str
        The base model's name for people, such as "LiteMedSAM".
    round : int or None
        The round that the shared parameters come from, 0 for a model trained at this site alone;
        None for a base model.
    version : int or None
        The site's version number; None for a base model.
    structures : tuple of Structure
        What the model can tell apart, with the values that it knows them by; empty for a base
        model.
    recipe_hash : str
        Of the recipe that a personalised model follows.
    profile : str
        Key of the profile that a personalised model belongs to.
    store : EmbeddingStore or None
        Where encoded slices are kept between sessions.
    """

    predictor: Predictor = field(repr=False)
    name: str
    round: int | None = None
    version: int | None = None
    structures: tuple[Structure, ...] = ()
    recipe_hash: str = ""
    profile: str = ""
    store: EmbeddingStore | None = field(default=None, repr=False)

    def encode(
        self, image: NDArray[np.uint8], between: Callable[[], None] | None = None
    ) -> ImageEmbedding:
        """Encode an image (H, W[, 3]), or take it from the store; `between` may wait."""
        if self.store is None:
            return self.predictor.encode(image, between)
        return encode_stored(
            self.predictor, image, self.store, identity=self.recipe_hash, between=between
        )

    @property
    def is_personalised(self) -> bool:
        """Whether this is a site's own version."""
        return self.version is not None

    @property
    def can_propose(self) -> bool:
        """Whether the model was trained to answer without a prompt."""
        return "none" in self.predictor.model.prompt_kinds

    @property
    def label(self) -> str:
        """What the status line says, such as "LiteMedSAM: personalised, round 3, this site"."""
        if not self.is_personalised:
            return f"{self.name}: base model"
        origin = f"round {self.round}, this site" if self.round else "trained at this site"
        return f"{self.name}: personalised, {origin}"

    @property
    def provenance(self) -> str:
        """What a case notes of the model that proposed its mask."""
        if not self.is_personalised:
            return self.name
        of_profile = f" of {self.profile}" if self.profile else ""
        return f"{self.name} round {self.round} version {self.version}{of_profile}"

    def structure_for(self, structure: Structure) -> int | None:
        """Return the value to predict with; None where the model does not know the structure.

        The name tells, as in training: where somebody worked before a federation, the same
        structure has another number there.
        """
        name = structure.name.casefold()
        values = (each.value for each in self.structures if each.name.casefold() == name)
        return next(values, None)
