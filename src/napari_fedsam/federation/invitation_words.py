"""An invitation in plain words, for whoever decides about taking part."""

from napari_fedsam.federation.invitation import Invitation
from napari_fedsam.federation.privacy import privacy_in_words
from napari_fedsam.personalization.methods import method_named


def invitation_in_words(invitation: Invitation) -> dict[str, str]:
    """Return what is to be known, by heading, in the order in which to read it."""
    recipe = invitation.recipe
    structures = ", ".join(structure.name for structure in recipe.structures)
    contact = invitation.contact or "not given"
    return {
        "Federation": f"{invitation.federation}, for the site '{invitation.site}'",
        "With whom": f"the coordinator at {invitation.address} (contact: {contact})",
        "What for": f"{structures}; {method_named(recipe.method).title}, on {recipe.base_model}",
        "What leaves": "the shared parameters of the model after training; the number of training "
        "and held-out cases, the loss, the seconds of training, the Dice on held-out cases, and "
        "whether the new model is in use",
        "What stays": "scans, masks, prompts, names, file paths and local parameters",
        "How often": _rounds(invitation),
        "Privacy": privacy_in_words(recipe.federation.privacy, recipe.rounds),
    }


def _rounds(invitation: Invitation) -> str:
    recipe = invitation.recipe
    when = f", started between {hours}" if (hours := recipe.federation.hours) else ""
    return (
        f"{recipe.rounds} rounds are planned{when}, each with at least {recipe.minimum_sites} "
        f"sites; this site takes part with {recipe.minimum_cases} or more training cases"
    )
