"""Methods, each a short declaration on one mechanism.

A method says which modules it inserts, which parameters are shared and which local (the rest is
frozen), and in which phases a local update runs. Phases before the exchange train what is sent;
phases after the aggregation fit the local parameters to the new shared ones, which are then held.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from napari_fedsam.personalization.errors import RecipeError
from napari_fedsam.personalization.method_options import MethodOptions, Schedule

Owner = Literal["frozen", "shared", "local"]
Module = Literal["lora", "experts", "adapters", "detail"]
Trains = Literal["shared", "local", "both"]

_TOKENS = "structure_embeddings.*"
_DECODER = "mask_decoder.*"
# What draws one mask (the others are left as they are) and rates it: 8 % of the decoder.
_DECODER_HEAD = (
    "mask_decoder.mask_tokens.*",
    "mask_decoder.transformer.norm_final_attn.*",
    "mask_decoder.output_upscaling.*",
    "mask_decoder.output_hypernetworks_mlps.0.*",
    "mask_decoder.iou_prediction_head.*",
)
# What draws SAM's further masks of an ambiguous prompt: one mask is trained, and these never move.
_FURTHER_MASKS = "mask_decoder.output_hypernetworks_mlps.[123].*"
_LORA = "image_encoder.*.lora_[ab]"
_EXPERTS = "image_encoder.*.experts.*"
_ADAPTERS = "image_encoder.*_adapter.*"
_DETAIL = "detail.*"
# Where a personalised model keeps its copies of shared parameters.
COPIES = "local_copies"
_INSERTED = (_TOKENS, _DETAIL, "*.lora_[ab]", "*.experts.*", "*_adapter.*")
_EVERYTHING = ("image_encoder.*", "prompt_encoder.*", _DECODER)


def is_inserted(parameter: str) -> bool:
    """Whether a parameter belongs to an inserted module or a structure's token, by its name.

    A site's own copy is what its original is.
    """
    original = parameter.removeprefix(f"{COPIES}.").replace("/", ".")
    return any(fnmatchcase(original, pattern) for pattern in _INSERTED)


@dataclass(frozen=True)
class Phase:
    """One stage of a site's training in a round.

    Parameters
    ----------
    trains : {"shared", "local", "both"}
        The parameters that move; the others are held.
    personal : bool
        Whether the personalised model learns, or the global one (local modules left out).
    distils : bool
        Whether the global model teaches the personalised one.
    alternates : bool
        Whether the global model learns in every other step.
    proximal : bool
        Whether the parameters are held near where they started or, where they are a site's own
        copies of shared ones, near those.
    """

    trains: Trains
    personal: bool = True
    distils: bool = False
    alternates: bool = False
    proximal: bool = False


@dataclass(frozen=True)
class Method:
    """A way to personalise and to federate.

    Parameters
    ----------
    name : str
        What recipes say.
    title : str
        What people read.
    source : str
        The paper it follows.
    shared : tuple of str
        Patterns of parameter names; the decoder and the tokens follow the options.
    update : tuple of Phase
        What a site trains before the exchange, in this order; empty where the option `schedule`
        says so.
    inserts : set of {"lora", "experts", "adapters", "detail"}
        Modules put into the encoder: LoRA and experts into its last blocks, adapters into all; and
        the detail branch beside it.
    personalise : tuple of Phase
        What a site trains after the aggregation.
    finale : tuple of Phase
        What it trains after the last round's, with the passes that `personalise` would have had
        in all rounds.
    copies : {"none", "kept", "shifted"}
        Whether a site has a copy of its own of every shared parameter, and whether the copies stay
        as they are when the shared parameters move, or move along.
    decoder : {"frozen", "shared", "local"}, optional
        Where the method itself says who owns the decoder.
    local_norms : bool
        Whether the normalisation layers' weights are local (batch norms where there are any).
    low_level : bool
        Whether only modules in the first half of the encoder's blocks are shared.
    aggregation : {"average", "similarity"}
        How the coordinator combines updates.
    rate : float
        What the recipe's learning rate is multiplied by, above 0.
    federates : bool
        False for a comparison that exchanges nothing.
    pooled : bool
        Whether one trainer sees all sites' cases: a comparison, too.
    options : set of str
        Options that it uses beside those of its modules.
    """

    name: str
    title: str
    source: str
    shared: tuple[str, ...]
    update: tuple[Phase, ...]
    inserts: frozenset[Module] = frozenset()
    personalise: tuple[Phase, ...] = ()
    finale: tuple[Phase, ...] = ()
    copies: Literal["none", "kept", "shifted"] = "none"
    decoder: Owner | None = None
    local_norms: bool = False
    low_level: bool = False
    aggregation: Literal["average", "similarity"] = "average"
    rate: float = 1.0
    federates: bool = True
    pooled: bool = False
    options: frozenset[str] = frozenset()

    def before_exchange(self, options: MethodOptions) -> tuple[Phase, ...]:
        """Return what a site trains before the exchange."""
        return self.update or (_SCHEDULES[options.schedule],)

    def owner(self, parameter: str, options: MethodOptions) -> Owner:
        """Return who owns a parameter, by its name in the personalised model."""
        owner = self._owner(parameter, options)
        return "local" if owner == "shared" and not self.federates and not self.pooled else owner

    def _owner(self, parameter: str, options: MethodOptions) -> Owner:
        if any(fnmatchcase(parameter, pattern) for pattern in (f"{COPIES}.*", _DETAIL)):
            return "local"
        if fnmatchcase(parameter, _EXPERTS):
            return options.expert_owner
        if fnmatchcase(parameter, _TOKENS):
            return options.structure_tokens
        if fnmatchcase(parameter, _DECODER):
            return self._decoder_owner(parameter, options)
        return "shared" if any(fnmatchcase(parameter, p) for p in self.shared) else "frozen"

    def _decoder_owner(self, parameter: str, options: MethodOptions) -> Owner:
        if self.decoder == "shared":
            # As the papers do, which count all of it.
            return "shared"
        if fnmatchcase(parameter, _FURTHER_MASKS):
            return "frozen"
        if self.decoder is not None:
            return self.decoder
        if options.decoder == "lora":
            light = ("*.lora_[ab]", *_DECODER_HEAD)
            return "shared" if any(fnmatchcase(parameter, p) for p in light) else "frozen"
        return options.decoder

    def copied(self, parameter: str, options: MethodOptions) -> bool:
        """Whether a site has a copy of its own of a shared parameter."""
        if self.copies != "none":
            return True
        return options.personal_decoder and fnmatchcase(parameter, _DECODER)

    def leaves_decoder_open_to(self, owner: str) -> bool:
        """Whether an option may say that the decoder is owned so."""
        return self.decoder is None and (owner != "local" or self._trains_local)

    @property
    def _trains_local(self) -> bool:
        """Whether any phase trains what stays at a site, under every schedule."""
        phases = (*self.update, *self.personalise, *self.finale)
        return any(phase.trains != "shared" for phase in phases)

    def check_options(self, options: MethodOptions) -> None:
        """Refuse options that this method has no use for, or that leave it nothing to train.

        Raises
        ------
        ValueError
            Naming the first of them, or saying what is missing.
        """
        plain = MethodOptions()
        used = self.options | _COMMON.union(*(_OPTIONS_OF[module] for module in self.inserts))
        if self.decoder is not None:
            used = used - {"decoder", "personal_decoder"}
        if not self._trains_local:
            used = used - {"structure_tokens"}
        for name in MethodOptions.model_fields:
            if name not in used and getattr(options, name) != getattr(plain, name):
                raise ValueError(
                    f"the method {self.name} has no use for the option {name}: leave it out"
                )
        if self.decoder is None and not self.leaves_decoder_open_to(options.decoder):
            raise ValueError(
                f"the method {self.name} trains nothing that stays at a site: its decoder cannot "
                "be local"
            )
        if "experts" in self.inserts and not options.keep_something_local:
            raise ValueError(
                f"nothing of the method {self.name} would stay at a site: keep local experts or "
                "the detail branch"
            )


_SCHEDULES: dict[Schedule, Phase] = {
    "joint": Phase("both"),
    "alternating": Phase("both", alternates=True),
    "decoupled": Phase("shared", personal=False),
}
_COMMON = frozenset({"decoder", "structure_tokens"})
_OPTIONS_OF: dict[Module, frozenset[str]] = {
    "lora": frozenset({"blocks", "lora_rank", "lora_alpha", "lora_targets"}),
    "experts": frozenset(
        {
            "blocks",
            "experts",
            "expert_blocks",
            "expert_width",
            "top_k",
            "gate",
            "expert_owner",
            "load_balance",
        }
    ),
    "adapters": frozenset(),
    "detail": frozenset({"detail_width"}),
}
_FEDAVG = "McMahan et al. 2017, arXiv 1602.05629"
_FEDFMS = "FedFMS, MICCAI 2024"
_PFEDSAM = "our interpretation of personalised federated SAM, arXiv 2509.15638"
_LORA_ONLY = frozenset[Module]({"lora"})

METHODS = {
    method.name: method
    for method in (
        Method(
            "pfedsam",
            "Personalised federated SAM",
            _PFEDSAM,
            inserts=frozenset({"lora", "experts", "detail"}),
            shared=(_LORA,),
            update=(),
            personalise=(Phase("local", distils=True),),
            options=frozenset({"schedule", "temperature", "distillation", "personal_decoder"}),
        ),
        Method(
            "fedsam",
            "FedSAM: every parameter shared",
            _FEDFMS,
            shared=_EVERYTHING,
            update=(Phase("shared"),),
            decoder="shared",
            # The recipe's, made for small modules, is too much for a whole pretrained encoder.
            rate=0.2,
        ),
        Method(
            "fedmsa",
            "FedMSA: Medical SAM Adapters and the decoder shared",
            _FEDFMS,
            inserts=frozenset({"adapters"}),
            shared=(_ADAPTERS,),
            update=(Phase("shared"),),
            decoder="shared",
        ),
        Method(
            "lora_fedavg",
            "LoRA with federated averaging",
            _FEDAVG,
            inserts=_LORA_ONLY,
            shared=(_LORA,),
            update=(Phase("shared"),),
        ),
        Method(
            "lora_fedavg_ft",
            "LoRA with federated averaging, then local fine-tuning",
            _FEDAVG,
            inserts=_LORA_ONLY,
            shared=(_LORA,),
            update=(Phase("shared", personal=False),),
            finale=(Phase("local"),),
            copies="shifted",
        ),
        Method(
            "local",
            "Each site alone",
            "no exchange",
            inserts=_LORA_ONLY,
            shared=(_LORA,),
            update=(Phase("local"),),
            federates=False,
        ),
        Method(
            "centralised",
            "All sites' cases in one place, LoRA",
            "no federation",
            inserts=_LORA_ONLY,
            shared=(_LORA,),
            update=(Phase("shared"),),
            federates=False,
            pooled=True,
        ),
        Method(
            "centralised_fedmsa",
            "All sites' cases in one place, the modules of FedMSA",
            "no federation",
            inserts=frozenset({"adapters"}),
            shared=(_ADAPTERS,),
            update=(Phase("shared"),),
            decoder="shared",
            federates=False,
            pooled=True,
        ),
        Method(
            "fedprox",
            "FedProx: federated averaging with a proximal term",
            "Li et al. 2020, arXiv 1812.06127",
            inserts=_LORA_ONLY,
            shared=(_LORA,),
            update=(Phase("shared", proximal=True),),
            options=frozenset({"proximal"}),
        ),
        Method(
            "fedper",
            "FedPer: local decoder, trained together with the rest",
            "Arivazhagan et al. 2019, arXiv 1912.00818",
            inserts=_LORA_ONLY,
            shared=(_LORA,),
            update=(Phase("both"),),
            decoder="local",
        ),
        Method(
            "fedrep",
            "FedRep: local decoder, trained before the rest",
            "Collins et al. 2021, arXiv 2102.07078",
            inserts=_LORA_ONLY,
            shared=(_LORA,),
            update=(Phase("local"), Phase("shared")),
            decoder="local",
        ),
        Method(
            "ditto",
            "Ditto: a personal model held near the shared one",
            "Li et al. 2021, arXiv 2012.04221",
            inserts=_LORA_ONLY,
            shared=(_LORA,),
            update=(Phase("shared", personal=False),),
            personalise=(Phase("local", proximal=True),),
            copies="kept",
            options=frozenset({"proximal"}),
        ),
        Method(
            "local_norm",
            "Local normalisation layers",
            "after FedBN, Li et al. 2021, arXiv 2102.07623",
            inserts=_LORA_ONLY,
            shared=(_LORA,),
            update=(Phase("both"),),
            local_norms=True,
        ),
        # Our reading of the abstract: low-level adapters are uploaded, and a site receives an
        # average weighted by how alike the sites' updates are.
        Method(
            "fedsca",
            "Similarity-guided aggregation of low-level adapters",
            "after FedSCA, arXiv 2503.15390 (our reading of the abstract)",
            inserts=frozenset({"adapters"}),
            shared=(_ADAPTERS,),
            update=(Phase("both"),),
            decoder="local",
            low_level=True,
            aggregation="similarity",
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
