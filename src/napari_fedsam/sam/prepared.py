"""Copies of a network's weights that are made anew whenever the weights have changed."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import nn

T = TypeVar("T")


class Prepared(Generic[T]):
    """Something made of modules' weights, never older than they are.

    Each time it is asked for, the modules' parameters and buffers are compared with those that it
    was made of, by torch's version counters and addresses: a model that was trained, loaded into
    or moved is never answered for by old weights.

    Parameters
    ----------
    modules : callable
        Returns the modules.
    make : callable
        Makes the thing; gradients are off.
    """

    def __init__(self, modules: Callable[[], Sequence[nn.Module]], make: Callable[[], T]) -> None:
        self._modules = modules
        self._make = make
        self._made: tuple[_Weights, T] | None = None

    @torch.no_grad()
    def get(self) -> T:
        """Return the thing, made anew if need be."""
        weights = _Weights(self._modules())
        # One assignment, so that two threads at most make the same thing twice.
        made = self._made
        if made is None or made[0] != weights:
            made = weights, self._make()
            self._made = made
        return made[1]


class _Weights:
    """Which values parameters and buffers have, without looking at them."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        states = [module.state_dict(keep_vars=True).values() for module in modules]
        tensors = [tensor for state in states for tensor in state]
        self._marks = [(tensor.data_ptr(), tensor._version) for tensor in tensors]
        # Held, so that no other tensor can take their place in memory unnoticed.
        self._held = [tensor.detach() for tensor in tensors]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Weights) and self._marks == other._marks

    __hash__ = None  # type: ignore[assignment]
