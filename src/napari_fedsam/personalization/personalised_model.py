"""The personalised model: frozen + shared + this site's local parameters."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_fedsam.personalization.errors import ParameterError
from napari_fedsam.personalization.insertion import insert_modules
from napari_fedsam.personalization.methods import Method, Owner, method_named
from napari_fedsam.personalization.recipe import Recipe
from napari_fedsam.sam.protocol import PromptableModel, PromptKind, Stage
from napari_fedsam.sam.registry import load_model

_TOKEN_WIDTH = 256

State = dict[str, torch.Tensor]


class PersonalisedModel(nn.Module):
    """A promptable model with a method's modules inserted and a token for every structure.

    It stays in evaluation mode in training too: frozen batch norms must not move, and TinyViT
    caches its (frozen) attention biases there.

    Parameters
    ----------
    base : PromptableModel
        Changed in place: modules are inserted into its image encoder.
    recipe : Recipe
    """

    def __init__(self, base: PromptableModel, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.method: Method = method_named(recipe.method)
        self.name = f"{base.name}, {self.method.title}"
        self.input_size = base.input_size
        self.prompt_kinds: frozenset[PromptKind] = base.prompt_kinds | {"none"}
        insert_modules(base.image_encoder, self.method, recipe.options)
        self.image_encoder = base.image_encoder
        self.prompt_encoder = base.prompt_encoder
        self.mask_decoder = base.mask_decoder
        self.structure_embeddings = nn.Embedding(len(recipe.structures), _TOKEN_WIDTH)
        nn.init.normal_(self.structure_embeddings.weight, std=0.02)
        self._rows = {structure.value: row for row, structure in enumerate(recipe.structures)}
        # Not a submodule: its parts are registered above, under names of our own.
        self._base = (base,)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self._owner(name) != "frozen")
        self.eval()

    def _owner(self, parameter: str) -> Owner:
        return self.method.owner(parameter, self.recipe.options)

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

    def parameters_of(self, owner: Owner) -> dict[str, nn.Parameter]:
        """Return the parameters that are frozen, shared or local, by name."""
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if self._owner(name) == owner
        }

    def shared_state(self) -> State:
        """Return copies of the shared parameters (float32, on the CPU)."""
        return _copies(self.parameters_of("shared"))

    def local_state(self) -> State:
        """Return copies of this site's local parameters (float32, on the CPU)."""
        return _copies(self.parameters_of("local"))

    def shared_spec(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Return the allow-list of what may be exchanged: name to (shape, dtype)."""
        return {
            name: (tuple(parameter.shape), str(parameter.dtype).removeprefix("torch."))
            for name, parameter in self.parameters_of("shared").items()
        }

    def load_shared(self, state: Mapping[str, torch.Tensor]) -> Self:
        """Load the shared parameters; see `load_local`."""
        return self._load("shared", state)

    def load_local(self, state: Mapping[str, torch.Tensor]) -> Self:
        """Load this site's local parameters.

        Raises
        ------
        ParameterError
            When names, shapes or types differ, or a value is not finite; nothing is loaded then.
        """
        return self._load("local", state)

    def _load(self, owner: Owner, state: Mapping[str, torch.Tensor]) -> Self:
        parameters = self.parameters_of(owner)
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
                raise ParameterError(
                    f"The {owner} parameter {name} has values that are no numbers."
                )
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(state[name])
        # TinyViT caches its attention biases on eval(): refresh the cache after every load.
        self.eval()
        return self


def _copies(parameters: Mapping[str, nn.Parameter]) -> State:
    return {
        name: parameter.detach().to("cpu", torch.float32, copy=True).contiguous()
        for name, parameter in parameters.items()
    }


def build_personalised_model(recipe: Recipe) -> PersonalisedModel:
    """Build the personalised model at step 0: the base model's weights and untouched modules.

    The inserted modules are drawn from the recipe's seed, so that every site starts alike. The
    caller's random state is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        # Building the base network draws random numbers too, before its weights are loaded.
        base = load_model(recipe.base_model)
        torch.manual_seed(recipe.seed)
        return PersonalisedModel(base, recipe)
