"""Options of a method: which modules are inserted how, and who owns what."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Schedule = Literal["joint", "decoupled"]
DecoderOwner = Literal["frozen", "lora", "shared", "local"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Options(BaseModel):
    """Options that are checked, cannot change, and refuse unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class MethodOptions(Options):
    """Options of the inserted modules and of the losses that go with them.

    Attributes
    ----------
    blocks : int
        How many of the encoder's last transformer blocks carry LoRA and experts. The blocks
        before them are frozen, so that their output is computed once per image.
    lora_rank, lora_alpha : int, float
        Rank r and scale alpha / r of the low-rank updates (Hu et al. 2022, LoRA).
    lora_targets : tuple of {"q", "k", "v"}
        The projections that are updated.
    experts, expert_width, top_k : int
        Number of bottleneck experts, their hidden width, and how many answer (the rest of the
        softmax gate is cut off).
    gate : {"image", "token"}
        Whether the gate decides once per image or for every token.
    expert_owner : {"local", "shared"}
        Who owns the experts; shared is for comparison only.
    load_balance : float
        Weight of the term that keeps all experts in use (Fedus et al. 2022, Switch Transformers).
    decoder : {"frozen", "lora", "shared", "local"}
        Who owns the mask decoder; "lora" freezes it and shares low-rank updates of its attention.
    own_share : float in 0..1
        How much of what a site's own update differs from the average stays in its personal model,
        in copies of the shared parameters: 0 is federated averaging without copies, 1 makes of the
        copies what training alone does.
    structure_tokens : {"shared", "local"}
        Who owns the structures' tokens.
    schedule : {"joint", "decoupled"}
        Whether shared and local parameters are trained before the exchange together, or the shared
        ones alone. The local ones are fitted to them after the last round.
    temperature, distillation : float
        T and alpha of the distillation term alpha * T^2 * KL(teacher || student), on the images
        where the teacher does better.
    proximal : float
        Weight of half the squared distance to the parameters that training started from (FedProx),
        or to the shared ones (Ditto).
    """

    blocks: int = Field(default=2, ge=1)
    lora_rank: int = Field(default=32, ge=1)
    lora_alpha: float = Field(default=32.0, gt=0)
    lora_targets: tuple[Literal["q", "k", "v"], ...] = Field(default=("q", "k", "v"), min_length=1)
    experts: int = Field(default=4, ge=1)
    expert_width: int = Field(default=32, ge=1)
    top_k: int = Field(default=2, ge=1)
    gate: Literal["image", "token"] = "image"
    expert_owner: Literal["local", "shared"] = "local"
    load_balance: float = Field(default=0.01, ge=0)
    decoder: DecoderOwner = "shared"
    own_share: Share = 0.5
    structure_tokens: Literal["shared", "local"] = "shared"
    schedule: Schedule = "decoupled"
    temperature: float = Field(default=2.0, gt=0)
    distillation: float = Field(default=0.5, ge=0)
    proximal: float = Field(default=0.01, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.top_k > self.experts:
            raise ValueError(
                f"top_k is {self.top_k} but there are only {self.experts} experts: lower top_k"
            )
        if len(set(self.lora_targets)) != len(self.lora_targets):
            raise ValueError("lora_targets names a projection twice: name each once")
        return self
