"""How many parameters a method freezes, shares and keeps at the site, and what a round costs."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from napari_fedsam.cases.case import Structure
from napari_fedsam.personalization.method_options import MethodOptions
from napari_fedsam.personalization.methods import METHODS
from napari_fedsam.personalization.personalised_model import PersonalisedModel
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.sam.registry import network_without_weights

_BYTES = 4


class MethodSummary(BaseModel):
    """A method on a base model.

    Attributes
    ----------
    name, title, source : str
    frozen, shared, local : int
        Parameters of each owner.
    bytes_per_round : int
        Of shared parameters in float32 that a site sends in a round, and as many that come in.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    source: str
    frozen: int
    shared: int
    local: int
    bytes_per_round: int


def summarise_methods(
    base_model: str,
    names: Sequence[str] | None = None,
    options: MethodOptions | None = None,
) -> list[MethodSummary]:
    """Count the parameters of methods with one structure.

    Parameters
    ----------
    base_model : str
        A name of the model registry; its weights are not needed.
    names : sequence of str, optional
        All methods by default.
    options : MethodOptions, optional

    Raises
    ------
    ModelError, RecipeError
        When a name is unknown.
    """
    return [
        _summary(base_model, name, options or MethodOptions()) for name in names or list(METHODS)
    ]


def _summary(base_model: str, name: str, options: MethodOptions) -> MethodSummary:
    structure = Structure(value=1, name="structure", color="#ffffff")
    recipe = Recipe(
        name="count", base_model=base_model, method=name, structures=(structure,), options=options
    )
    network = network_without_weights(base_model)
    with next(network.mask_decoder.parameters()).device:
        model = PersonalisedModel(network, recipe)
    frozen, shared, local = (
        sum(parameter.numel() for parameter in model.parameters_of(owner).values())
        for owner in ("frozen", "shared", "local")
    )
    exchanged = shared * _BYTES if model.method.federates else 0
    return MethodSummary(
        name=name,
        title=model.method.title,
        source=model.method.source,
        frozen=frozen,
        shared=shared,
        local=local,
        bytes_per_round=exchanged,
    )
