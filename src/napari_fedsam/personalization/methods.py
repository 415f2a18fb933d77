"""Methods, each a short declaration on one mechanism.

A method says which modules it inserts, which parameters are shared and which local (the rest is
frozen), and in which phases a local update runs.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from napari_fedsam.personalization.errors import RecipeError
from napari_fedsam.personalization.recipe import MethodOptions

Owner = Literal["frozen", "shared", "local"]

STRUCTURE_TOKENS = "structure_embeddings.*"
_DECODER = "mask_decoder.*"
_LORA = "*.lora_[ab]"
_EXPERTS = "*.experts.*"


@dataclass(frozen=True)
class Phase:
    """One stage of a local update.

    Parameters
    ----------
    trains : {"shared", "local"}
        The parameters that move; the others are held.
    distils : bool
        Whether the global model (experts bypassed) teaches the personalised one.
    """

    trains: Literal["shared", "local"]
    distils: bool = False


@dataclass(frozen=True)
class Method:
    """A way to personalise and to federate.

    Parameters
    ----------
    name : str
        What recipes say.
    title : str
        What people read.
    inserts_lora, inserts_experts : bool
        The modules put into the encoder's last blocks.
    shared, local : tuple of str
        Patterns of parameter names.
    phases : tuple of Phase
        In the order in which a local update runs them.
    """

    name: str
    title: str
    inserts_lora: bool
    inserts_experts: bool
    shared: tuple[str, ...]
    local: tuple[str, ...]
    phases: tuple[Phase, ...]

    def owner(self, parameter: str, options: MethodOptions) -> Owner:
        """Return who owns a parameter, by its name in the personalised model."""
        if fnmatchcase(parameter, _DECODER) and _DECODER not in self.shared:
            return options.decoder
        if any(fnmatchcase(parameter, pattern) for pattern in self.local):
            return "local"
        if any(fnmatchcase(parameter, pattern) for pattern in self.shared):
            return "shared"
        return "frozen"


METHODS = {
    method.name: method
    for method in (
        # Our interpretation of personalised federated SAM (arXiv 2509.15638): low-rank updates
        # are aggregated, experts stay; first the shared part learns with the experts bypassed,
        # then the experts learn under the shared part's guidance.
        Method(
            "pfedsam",
            "Personalised federated SAM",
            inserts_lora=True,
            inserts_experts=True,
            shared=(_LORA, STRUCTURE_TOKENS),
            local=(_EXPERTS,),
            phases=(Phase("shared"), Phase("local", distils=True)),
        ),
        Method(
            "lora_fedavg",
            "LoRA with federated averaging",
            inserts_lora=True,
            inserts_experts=False,
            shared=(_LORA, STRUCTURE_TOKENS),
            local=(),
            phases=(Phase("shared"),),
        ),
        # FedFMS's FedSAM: every parameter is trained and shared.
        Method(
            "fedsam",
            "FedSAM (every parameter shared)",
            inserts_lora=False,
            inserts_experts=False,
            shared=("image_encoder.*", "prompt_encoder.*", _DECODER, STRUCTURE_TOKENS),
            local=(),
            phases=(Phase("shared"),),
        ),
    )
}


def method_named(name: str) -> Method:
    """Return a method.

    Raises
    ------
    RecipeError
        Listing the methods there are, when the name is unknown.
    """
    try:
        return METHODS[name]
    except KeyError:
        raise RecipeError(
            f"There is no method named '{name}': choose one of {', '.join(METHODS)}."
        ) from None
