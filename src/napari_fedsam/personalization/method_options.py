"""Options of a method: which modules are inserted how, and who owns what."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Schedule = Literal["joint", "alternating", "decoupled"]
DecoderOwner = Literal["frozen", "lora", "shared", "local"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]

# Options that do nothing where the first is 0.
_IDLE_AT_ZERO = {
    "experts": ("expert_blocks", "expert_width", "top_k", "gate", "expert_owner", "load_balance"),
    "distillation": ("temperature",),
}


class Options(BaseModel):
    """Options that are checked, cannot change, and refuse unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MethodOptions(Options):
    """Options of the inserted modules and of the losses that go with them.

    Attributes
    ----------
    blocks : int
        How many of the encoder's last transformer blocks carry LoRA. The blocks before them are
        frozen, so that their output is computed once per image.
    lora_rank, lora_alpha : int, float
        Rank r and scale alpha / r of the low-rank updates (Hu et al. 2022, LoRA).
    lora_targets : tuple of {"q", "k", "v"}
        The projections that are updated.
    experts, expert_blocks, expert_width, top_k : int
        Number of bottleneck experts (0 for none), in how many of the last `blocks` they are (all
        where there are fewer), their hidden width, and how many answer (the rest of the softmax
        gate is cut off).
    gate : {"image", "token"}
        Whether the gate decides once per image or for every token.
    expert_owner : {"local", "shared"}
        Who owns the experts; shared is for comparison only.
    detail_width : int
        Channels of the site's detail branch, which sees the pixels beside the encoder; 0 for none.
    load_balance : float
        Weight of the term that keeps all experts in use (Fedus et al. 2022, Switch Transformers),
        computed over the gate's decisions in one step: where that is a single one (single images,
        `gate` "image") the term keeps the gate from being sure.
    decoder : {"frozen", "lora", "shared", "local"}
        Who owns the mask decoder; "lora" freezes it but for the output layers, which are shared
        like low-rank updates of its attention.
    personal_decoder : bool
        Whether each site keeps a decoder of its own beside the shared one, trained on from it.
    structure_tokens : {"shared", "local"}
        Who owns the structures' tokens.
    schedule : {"joint", "alternating", "decoupled"}
        Whether shared and local parameters are trained before the exchange together; together and,
        in every other step, the shared ones alone in the global model; or the shared ones alone in
        the global model. The local ones are fitted to the aggregated ones after that.
    temperature, distillation : float
        T and alpha of the distillation term alpha * T^2 * KL(teacher || student).
    proximal : float
        Weight of half the squared distance to the parameters that training started from (FedProx),
        or to the shared ones (Ditto).
    """

    blocks: int = Field(default=2, ge=1)
    lora_rank: int = Field(default=32, ge=1)
    lora_alpha: float = Field(default=32.0, gt=0)
    lora_targets: tuple[Literal["q", "k", "v"], ...] = Field(default=("q", "k", "v"), min_length=1)
    experts: int = Field(default=4, ge=0)
    expert_blocks: int = Field(default=2, ge=1)
    expert_width: int = Field(default=32, ge=1)
    top_k: int = Field(default=2, ge=1)
    gate: Literal["image", "token"] = "image"
    expert_owner: Literal["local", "shared"] = "local"
    detail_width: int = Field(default=16, ge=0)
    load_balance: float = Field(default=0.01, ge=0)
    decoder: DecoderOwner = "shared"
    personal_decoder: bool = False
    structure_tokens: Literal["shared", "local"] = "shared"
    schedule: Schedule = "joint"
    temperature: float = Field(default=2.0, gt=0)
    distillation: float = Field(default=0.5, ge=0)
    proximal: float = Field(default=0.01, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if 0 < self.experts < self.top_k:
            raise ValueError(
                f"top_k is {self.top_k} but there are only {self.experts} experts: lower top_k"
            )
        if self.blocks < self.expert_blocks != type(self).model_fields["expert_blocks"].default:
            raise ValueError(
                f"expert_blocks is {self.expert_blocks} but only {self.blocks} blocks carry "
                "modules: raise blocks or lower expert_blocks"
            )
        if len(set(self.lora_targets)) != len(self.lora_targets):
            raise ValueError("lora_targets names a projection twice: name each once")
        if self.personal_decoder and self.decoder in ("frozen", "local"):
            raise ValueError(
                f"personal_decoder goes with a shared decoder, but decoder is {self.decoder}: "
                "change one of them"
            )
        for switch, idle in _IDLE_AT_ZERO.items():
            if getattr(self, switch) == 0:
                self._check_left_out(idle, switch)
        return self

    def _check_left_out(self, options: tuple[str, ...], switch: str) -> None:
        for name in options:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} has no use where {switch} is 0: leave {name} out")

    @property
    def keep_something_local(self) -> bool:
        """Whether anything that the experts' method inserts or trains stays at the site."""
        return (
            self.detail_width > 0
            or (self.experts > 0 and self.expert_owner == "local")
            or self.decoder == "local"
            or self.personal_decoder
            or self.structure_tokens == "local"
        )
