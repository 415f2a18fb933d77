"""A site's own copies of shared parameters, which take their place in the personalised model."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

Following = Literal["kept", "shifted"]


class LocalCopies(nn.Module):
    """Copies of some of a network's parameters, put in their place and taken out again.

    While the copies are in place, this module holds the originals, so that moving the network to
    a device moves both.

    Parameters
    ----------
    network : torch.nn.Module
    names : sequence of str
        The parameters that are copied; a copy's name has slashes for dots.
    following : {"kept", "shifted"}
        Whether the copies stay when the shared parameters move, or move along, so that their
        distance stays.
    """

    def __init__(self, network: nn.Module, names: Sequence[str], following: Following) -> None:
        super().__init__()
        self.following = following
        self.in_place = False
        self._slots: list[tuple[nn.Module, str, str]] = []
        for name in names:
            path, _, attribute = name.rpartition(".")
            owner = network.get_submodule(path)
            copy = nn.Parameter(owner.get_parameter(attribute).detach().clone())
            self.register_parameter(_key(name), copy)
            self._slots.append((owner, attribute, _key(name)))

    def put_in_place(self, wanted: bool) -> None:
        """Let the network use the copies, or the originals."""
        if wanted == self.in_place:
            return
        for owner, attribute, key in self._slots:
            other = owner._parameters[attribute]
            owner._parameters[attribute] = self._parameters[key]
            self._parameters[key] = other
        self.in_place = wanted

    @torch.no_grad()
    def follow(self, copy: nn.Parameter, before: torch.Tensor, now: torch.Tensor) -> None:
        """Adjust a copy to a shared parameter's new value."""
        if self.following == "shifted":
            # In this order, so that a copy that equals its original goes on doing so exactly.
            copy.copy_(now + (copy - before))


def copy_name(prefix: str, parameter: str) -> str:
    """Return the name of a parameter's copy in the network that has the copies."""
    return f"{prefix}.{_key(parameter)}"


def _key(parameter: str) -> str:
    return parameter.replace(".", "/")
