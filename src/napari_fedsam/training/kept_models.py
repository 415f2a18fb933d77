"""Models that a process keeps from one piece of work to the next.

Building one takes longer than a short training, and under Flower's simulation a few processes
answer for many sites.
"""

from napari_fedsam.personalization.personalised_model import (
    PersonalisedModel,
    State,
    build_personalised_model,
)
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.sam.protocol import PromptableModel
from napari_fedsam.sam.registry import load_model


class KeptModels:
    """The personalised model and the base model that were asked for last.

    Not for several threads: whoever asks for a model again takes it from who had it before.
    """

    def __init__(self) -> None:
        self._personalised: tuple[PersonalisedModel, State, State] | None = None
        self._base: tuple[str, PromptableModel] | None = None

    def untrained(self, recipe: Recipe) -> PersonalisedModel:
        """Return a recipe's model at step 0: nothing is left of what was trained or loaded."""
        if self._personalised is None or self._personalised[0].recipe.hash != recipe.hash:
            # Let go of the old one first: there need not be room for both.
            self._personalised = None
            built = build_personalised_model(recipe)
            self._personalised = built, built.shared_state(), built.local_state()
        model, shared, local = self._personalised
        return model.load_shared(shared).load_local(local)

    def base(self, name: str) -> PromptableModel:
        """Return a base model, which must not be changed."""
        if self._base is None or self._base[0] != name:
            self._base = None
            self._base = name, load_model(name)
        return self._base[1]
