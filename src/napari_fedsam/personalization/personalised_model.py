"""The personalised model: frozen + shared + this site's local parameters."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_fedsam.personalization.detail_branch import DetailBranch
from napari_fedsam.personalization.errors import ParameterError
from napari_fedsam.personalization.experts import MixtureOfExperts, MlpWithExperts
from napari_fedsam.personalization.insertion import (
    insert_decoder_lora,
    insert_modules,
    normalisation_layers,
    transformer_blocks,
)
from napari_fedsam.personalization.local_copies import Following, LocalCopies, copy_name
from napari_fedsam.personalization.methods import COPIES, Method, Owner, method_named
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.sam.protocol import PromptableModel, PromptKind, Stage
from napari_fedsam.sam.registry import load_model

_TOKEN_WIDTH = 256

State = dict[str, torch.Tensor]


class PersonalisedModel(nn.Module):
    """A promptable model with a method's modules inserted and a token for every structure.

    It stays in evaluation mode in training too: frozen batch norms must not move, and TinyViT
    caches its attention biases there.

    Parameters
    ----------
    base : PromptableModel
        Changed in place: modules are inserted into it.
    recipe : Recipe
    """

    def __init__(self, base: PromptableModel, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.method: Method = method_named(recipe.method)
        self.name = f"{base.name}, {self.method.title}"
        self.input_size = base.input_size
        insert_modules(base.image_encoder, self.method, recipe.options)
        if recipe.options.decoder == "lora" and self.method.decoder is None:
            insert_decoder_lora(base.mask_decoder, recipe.options)
        self.image_encoder = base.image_encoder
        self.prompt_encoder = base.prompt_encoder
        self.mask_decoder = base.mask_decoder
        self.structure_embeddings = nn.Embedding(len(recipe.structures), _TOKEN_WIDTH)
        nn.init.normal_(self.structure_embeddings.weight, std=0.02)
        width = recipe.options.detail_width if "detail" in self.method.inserts else 0
        self.detail = DetailBranch(width) if width else None
        self._without_detail = False
        self._rows = {structure.value: row for row, structure in enumerate(recipe.structures)}
        # Not a submodule: its parts are registered above, under names of our own.
        self._base = (base,)
        self._shared_was_loaded = False
        self._owners = self._partition()
        copied = [
            name
            for name, owner in self._owners.items()
            if owner == "shared" and self.method.copied(name, recipe.options)
        ]
        following: Following = "shifted" if self.method.copies == "none" else self.method.copies
        self.local_copies = LocalCopies(self, copied, following)
        self._copy_of = {name: copy_name(COPIES, name) for name in copied}
        self._owners |= dict.fromkeys(self._copy_of.values(), "local")
        # Taken before any copy is put in a shared parameter's place.
        self._parameters_by_name = dict(self.named_parameters())
        for name, parameter in self._parameters_by_name.items():
            parameter.requires_grad_(self._owners[name] != "frozen")
        self.local_copies.put_in_place(True)
        self.eval()

    def _partition(self) -> dict[str, Owner]:
        owners = {
            name: self.method.owner(name, self.recipe.options)
            for name, _ in self.named_parameters()
        }
        if self.method.local_norms:
            norms = normalisation_layers(self.image_encoder, self.recipe.options.blocks)
            owners |= dict.fromkeys(self._names_in(norms), "local")
        if self.method.low_level:
            blocks = transformer_blocks(self.image_encoder)
            high = set(self._names_in(blocks[len(blocks) // 2 :]))
            owners = {
                name: "local" if owner == "shared" and name in high else owner
                for name, owner in owners.items()
            }
        return owners

    def _names_in(self, modules: Sequence[nn.Module]) -> list[str]:
        inside = {id(parameter) for module in modules for parameter in module.parameters()}
        return [name for name, parameter in self.named_parameters() if id(parameter) in inside]

    @property
    def prompt_kinds(self) -> frozenset[PromptKind]:
        """What the decoder was trained for: clicks once shared parameters were loaded into it."""
        kinds: frozenset[PromptKind] = self._base[0].prompt_kinds | {"none"}
        trained_on_clicks = (
            self._shared_was_loaded
            and self.recipe.training.prompts.click > 0
            and (self.method.decoder or self.recipe.options.decoder) != "frozen"
        )
        return kinds | {"point"} if trained_on_clicks else kinds

    @property
    def detail_branch(self) -> DetailBranch | None:
        """What sees the pixels beside the encoder; None where there is none, or left out."""
        return None if self._without_detail else self.detail

    def preprocess(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """Return the encoder's input, by the base model's own preprocessing."""
        return self._base[0].preprocess(image)

    def encoder_stages(self) -> Sequence[Stage]:
        """Return the image encoder as a chain of stages."""
        return self._base[0].encoder_stages()

    def structure_tokens(self, structure: int | Sequence[int] | None, batch: int) -> torch.Tensor:
        """Return the structures' tokens, shape (batch, 1, 256); none for an unknown structure.

        Parameters
        ----------
        structure : int, sequence of int, or None
            One structure's value for all, or one for each of the batch.
        batch : int
        """
        weight = self.structure_embeddings.weight
        values = (
            [structure] * batch if structure is None or isinstance(structure, int) else structure
        )
        if any(value not in self._rows for value in values):
            return torch.zeros(batch, 0, _TOKEN_WIDTH, device=weight.device)
        rows = torch.tensor([self._rows[value] for value in values], device=weight.device)  # type: ignore[index]
        tokens: torch.Tensor = self.structure_embeddings(rows)[:, None]
        return tokens

    @contextmanager
    def global_view(self) -> Iterator[None]:
        """Answer as the global model does: without a site's experts, details and copies.

        A decoder, tokens or norms that are local have no global counterpart and answer here, too.
        """
        layers = self._layers_with_experts()
        before = [layer.bypassed for layer in layers]
        without_detail = self._without_detail
        with self.copies_at_rest():
            self.stay_global()
            try:
                yield
            finally:
                for layer, value in zip(layers, before, strict=True):
                    layer.bypassed = value
                self._without_detail = without_detail

    def stay_global(self) -> Self:
        """Answer as the global model does from now on (see `global_view`)."""
        self.local_copies.put_in_place(False)
        self._without_detail = True
        for layer in self._layers_with_experts():
            layer.bypassed = self.recipe.options.expert_owner != "shared"
            layer.experts.imbalance = None
        return self

    def _layers_with_experts(self) -> list[MlpWithExperts]:
        return [module for module in self.modules() if isinstance(module, MlpWithExperts)]

    @contextmanager
    def attention_biases_in_training(self) -> Iterator[None]:
        """Let trainable attention biases of TinyViT be read anew at every step."""
        layers = [
            module
            for module in self.modules()
            if isinstance(getattr(module, "attention_biases", None), nn.Parameter)
            and module.attention_biases.requires_grad
        ]
        for layer in layers:
            layer.train()
        try:
            yield
        finally:
            for layer in layers:
                layer.eval()

    @contextmanager
    def copies_at_rest(self) -> Iterator[None]:
        """Let the shared parameters answer where this site has copies of its own."""
        before = self.local_copies.in_place
        self.local_copies.put_in_place(False)
        try:
            yield
        finally:
            self.local_copies.put_in_place(before)

    @contextmanager
    def copies_following(self) -> Iterator[None]:
        """Let this site's copies move along with what training does to the shared parameters."""
        before = {name: self._parameters_by_name[name].detach().clone() for name in self._copy_of}
        yield
        for name, copy in self._copy_of.items():
            now = self._parameters_by_name[name]
            self.local_copies.follow(self._parameters_by_name[copy], before[name], now)

    def expert_imbalance(self) -> torch.Tensor | None:
        """Return the mean imbalance of the experts in the last forward pass; None without any."""
        found = [
            module.imbalance
            for module in self.modules()
            if isinstance(module, MixtureOfExperts) and module.imbalance is not None
        ]
        return torch.stack(found).mean() if found else None

    def parameters_of(self, owner: Owner) -> dict[str, nn.Parameter]:
        """Return the parameters that are frozen, shared or local, by name."""
        return {
            name: parameter
            for name, parameter in self._parameters_by_name.items()
            if self._owners[name] == owner
        }

    def copies(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Return shared parameters with this site's own copies of them."""
        named = self._parameters_by_name
        return [(named[name], named[copy]) for name, copy in self._copy_of.items()]

    def shared_state(self) -> State:
        """Return copies of the shared parameters (float32, on the CPU)."""
        return _copies(self.parameters_of("shared"))

    def local_state(self) -> State:
        """Return copies of this site's local parameters (float32, on the CPU).

        Where the site's copies move along with the shared parameters, their distance is returned.
        """
        state = _copies(self.parameters_of("local"))
        if self.local_copies.following == "shifted":
            for name, copy in self._copy_of.items():
                state[copy] -= self._parameters_by_name[name].detach().to("cpu", torch.float32)
        return state

    def shared_spec(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return the allow-list of what may be exchanged: name to (shape, dtype)."""
        return {
            name: (tuple(parameter.shape), str(parameter.dtype).removeprefix("torch."))
            for name, parameter in self.parameters_of("shared").items()
        }

    @torch.no_grad()
    def load_shared(self, state: Mapping[str, torch.Tensor]) -> Self:
        """Load the shared parameters; the site's copies of them follow as the method says.

        Raises
        ------
        ParameterError
            When names, shapes or types differ, or a value is not finite; nothing is loaded then.
        """
        parameters = self.parameters_of("shared")
        _check(parameters, state, "shared")
        with self.copies_following():
            for name, parameter in parameters.items():
                parameter.copy_(state[name])
        self._shared_was_loaded = True
        return self._refreshed()

    @torch.no_grad()
    def load_local(self, state: Mapping[str, torch.Tensor]) -> Self:
        """Load this site's local parameters, after the shared ones that they belong to.

        Raises
        ------
        ParameterError
            See `load_shared`.
        """
        parameters = self.parameters_of("local")
        _check(parameters, state, "local")
        for name, parameter in parameters.items():
            parameter.copy_(state[name])
        if self.local_copies.following == "shifted":
            for shared, copy in self.copies():
                copy.add_(shared)
        return self._refreshed()

    def _refreshed(self) -> Self:
        # TinyViT caches its attention biases on eval(): refresh the cache after every load.
        self.eval()
        return self


def _check(
    parameters: Mapping[str, nn.Parameter], state: Mapping[str, torch.Tensor], owner: str
) -> None:
    if parameters.keys() != state.keys():
        wrong = sorted(parameters.keys() ^ state.keys())
        raise ParameterError(
            f"{len(wrong)} {owner} parameters are missing or unknown, the first {wrong[0]}: "
            "these parameters belong to another recipe."
        )
    for name, parameter in parameters.items():
        value = state[name]
        if value.shape != parameter.shape or value.dtype != parameter.dtype:
            raise ParameterError(
                f"The {owner} parameter {name} is {tuple(value.shape)} {value.dtype} instead "
                f"of {tuple(parameter.shape)} {parameter.dtype}: it belongs to another recipe."
            )
        if not value.isfinite().all():
            raise ParameterError(f"The {owner} parameter {name} has values that are no numbers.")


def _copies(parameters: Mapping[str, nn.Parameter]) -> State:
    return {
        name: parameter.detach().to("cpu", torch.float32, copy=True).contiguous()
        for name, parameter in parameters.items()
    }


def build_personalised_model(recipe: Recipe) -> PersonalisedModel:
    """Build the personalised model at step 0: the base model's weights and untouched modules.

    The inserted modules are drawn from the recipe's seed, so that every site starts alike. The
    caller's random state on the CPU is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        # Building the base network draws random numbers too, before its weights are loaded.
        base = load_model(recipe.base_model)
        torch.manual_seed(recipe.seed)
        return PersonalisedModel(base, recipe)
