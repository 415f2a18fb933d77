"""Updates in fewer bits, with error feedback: what rounding loses is sent with the next update.

Error feedback: Seide et al. 2014 (1-bit SGD) and Karimireddy et al. 2019, arXiv 1901.09847.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from napari_fedsam.personalization.federation_options import Precision
from napari_fedsam.personalization.personalised_model import State

SCALES = "scales"
"""Name of the array that goes with int8 values: one float32 step for each tensor, names sorted."""

Spec = Mapping[str, tuple[tuple[int, ...], str]]

_MOST_INT8 = 127


def rounded_spec(spec: Spec, precision: Precision) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return names, shapes and dtypes of a rounded update.

    Parameters
    ----------
    spec : mapping of str to (shape, dtype)
        The shared parameters.
    precision : {"float32", "float16", "int8"}
    """
    if precision == "float32":
        return dict(spec)
    rounded = {name: (shape, str(precision)) for name, (shape, _) in spec.items()}
    if precision == "int8":
        rounded[SCALES] = ((len(spec),), "float32")
    return rounded


def round_update(
    update: State, precision: Precision, left_over: Mapping[str, Tensor] | None = None
) -> tuple[State, State]:
    """Round an update together with what earlier rounding has left over.

    Parameters
    ----------
    update : dict of str to float32 tensor
    precision : {"float16", "int8"}
        Values as half-precision numbers, or as multiples of a 127th of a tensor's largest.
    left_over : mapping of str to float32 tensor, optional

    Returns
    -------
    (dict of str to tensor, dict of str to float32 tensor)
        What is sent, described by `rounded_spec`, and what is left over now.
    """
    wanted = {
        name: value if left_over is None else value + left_over[name]
        for name, value in update.items()
    }
    if precision == "int8":
        names = sorted(wanted)
        scales = torch.stack([_step(wanted[name]) for name in names])
        sent: State = {
            name: (wanted[name] / scale).round().to(torch.int8)
            for name, scale in zip(names, scales, strict=True)
        }
        sent[SCALES] = scales
    else:
        largest = torch.finfo(torch.float16).max
        sent = {
            name: value.clamp(-largest, largest).to(torch.float16) for name, value in wanted.items()
        }
    arrives = expand_update(sent)
    return sent, {name: wanted[name] - arrives[name] for name in wanted}


def expand_update(sent: Mapping[str, Tensor]) -> State:
    """Return a rounded update as float32 tensors."""
    names = sorted(sent.keys() - {SCALES})
    if SCALES not in sent:
        return {name: sent[name].float() for name in names}
    return {
        name: sent[name].float() * scale for name, scale in zip(names, sent[SCALES], strict=True)
    }


def _step(values: Tensor) -> Tensor:
    """Return the size of one step (1 where all values are zero)."""
    largest = values.abs().max().float()
    return torch.where(largest > 0, largest / _MOST_INT8, torch.ones(()))
