"""Which structure a command is about: one that the model tells apart, or any for a base model."""

from napari_fedsam.annotation.structures import FIRST_STRUCTURE
from napari_fedsam.cases.case import Structure
from napari_fedsam.personalization.personalised_model import PersonalisedModel
from napari_fedsam.sam.errors import PromptError
from napari_fedsam.sam.predictor import Predictor

_VALUES = range(1, 256)


def structures_of(predictor: Predictor) -> tuple[Structure, ...]:
    """Return what a predictor's model tells apart; nothing for a base model."""
    model = predictor.model
    return tuple(model.recipe.structures) if isinstance(model, PersonalisedModel) else ()


def chosen_structure(predictor: Predictor, wanted: str | int | None) -> Structure:
    """Return the structure that is wanted of a model.

    A personalised model asked for a structure that it does not know answers as if it knew none,
    without a word; so that is refused here.

    Parameters
    ----------
    predictor : Predictor
    wanted : str, int or None
        A value, or a name of a personalised model's structures. Without it, the only structure of
        the model; for a base model, which tells none apart, the one of value 1.

    Raises
    ------
    PromptError
        When the model does not have it, or has several and none is wanted.
    """
    known = structures_of(predictor)
    if not known:
        return _any_structure(wanted)
    if wanted is None and len(known) == 1:
        return known[0]
    listed = " or ".join(f"{each.value} ({each.name})" for each in known)
    if wanted is None:
        raise PromptError(f"The model tells several structures apart: choose {listed}.")
    text = str(wanted).strip().casefold()
    for each in known:
        if text in (str(each.value), each.name.casefold()):
            return each
    raise PromptError(f"The model has no structure {wanted}: choose {listed}.")


def _any_structure(wanted: str | int | None) -> Structure:
    if wanted is None:
        return FIRST_STRUCTURE
    text = str(wanted).strip()
    if not text.isdecimal() or int(text) not in _VALUES:
        raise PromptError(
            f"A base model tells no structures apart, so '{wanted}' means nothing to it: give a "
            "value from 1 to 255."
        )
    return FIRST_STRUCTURE.model_copy(update={"value": int(text), "name": f"structure {int(text)}"})
