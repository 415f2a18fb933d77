"""The parameters that move in a phase, their optimiser, and what they are pulled to."""

from collections.abc import Mapping

import torch
from torch import nn

from napari_fedsam.personalization.methods import Phase, Trains, is_inserted
from napari_fedsam.personalization.personalised_model import PersonalisedModel

_GRADIENT_NORM = 1.0


class PhaseTraining:
    """One phase of a local update.

    Parameters
    ----------
    model : PersonalisedModel
    phase : Phase
    """

    def __init__(self, model: PersonalisedModel, phase: Phase) -> None:
        self._model = model
        self.phase = phase
        self._parameters = _trained(model, phase.trains)
        faster = model.recipe.training.inserted_rate
        groups = (
            {"params": self._named(inserted=False), "times": 1.0},
            {"params": self._named(inserted=True), "times": faster},
        )
        # On the CPU the fused step takes a third of the time; elsewhere torch chooses.
        on_cpu = next(iter(self._parameters.values())).device.type == "cpu"
        self._optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]], fused=on_cpu or None
        )
        self._anchors: dict[str, torch.Tensor] = {}
        if phase.proximal:
            shared_of = {id(copy): shared for shared, copy in model.copies()}
            self._anchors = {
                name: shared_of.get(id(parameter), parameter).detach().clone()
                for name, parameter in self._parameters.items()
            }

    def _named(self, *, inserted: bool) -> list[nn.Parameter]:
        return [p for name, p in self._parameters.items() if is_inserted(name) is inserted]

    def pull(self) -> torch.Tensor:
        """Return the proximal term (0 without one).

        Half the squared distance to where the parameters started or, for a site's own copies, to
        the shared parameters, times the recipe's weight.
        """
        total = torch.zeros(())
        for name, anchor in self._anchors.items():
            total = total.to(anchor.device) + (self._parameters[name] - anchor).square().sum()
        return 0.5 * self._model.recipe.options.proximal * total

    def step(self, loss: torch.Tensor, rate: float, *, shared_alone: bool = False) -> None:
        """Take one step of AdamW with clipped gradients.

        Parameters
        ----------
        loss : float tensor
        rate : float
            The base model's learning rate.
        shared_alone : bool
            Whether local parameters are held, as when the global model learns.
        """
        named = self._parameters
        if shared_alone:
            shared = self._model.parameters_of("shared")
            named = {name: parameter for name, parameter in named.items() if name in shared}
        leaves = list(named.values())
        # Only these get a gradient, so that nothing is accumulated where nothing is trained.
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        for parameter, gradient in zip(leaves, gradients, strict=True):
            # The fused step reads gradients as if they were laid out as the parameters are.
            parameter.grad = None if gradient is None else gradient.contiguous()
        torch.nn.utils.clip_grad_norm_(leaves, _GRADIENT_NORM)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["times"]
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return copies of all trainable parameters, moments and anchors, for an exact resume."""
        tensors = {f"anchor/{name}": anchor for name, anchor in self._anchors.items()}
        # Those of earlier phases, too.
        for name, parameter in _not_frozen(self._model).items():
            tensors[f"parameter/{name}"] = parameter.detach()
        for name, parameter in self._parameters.items():
            for key, value in self._optimizer.state[parameter].items():
                tensors[f"optimizer/{key}/{name}"] = value
        return {name: value.cpu().clone().contiguous() for name, value in tensors.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on where `tensors` were taken."""
        every = _not_frozen(self._model)
        for key, value in tensors.items():
            kind, _, rest = key.partition("/")
            if kind == "parameter":
                every[rest].copy_(value)
            elif kind == "anchor":
                self._anchors[rest].copy_(value)
            else:
                moment, _, name = rest.partition("/")
                parameter = self._parameters[name]
                # The step count stays on the CPU, moments go where the parameters are.
                placed = value if moment == "step" else value.to(parameter.device)
                self._optimizer.state[parameter][moment] = placed


def _trained(model: PersonalisedModel, trains: Trains) -> dict[str, nn.Parameter]:
    if trains != "both":
        return model.parameters_of(trains)
    # A site's copies move along; while they answered the originals would learn nothing.
    copies = {id(copy) for _, copy in model.copies()}
    return {name: p for name, p in _not_frozen(model).items() if id(p) not in copies}


def _not_frozen(model: PersonalisedModel) -> dict[str, nn.Parameter]:
    return model.parameters_of("shared") | model.parameters_of("local")
