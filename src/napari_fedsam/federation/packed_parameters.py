"""Parameters in one part of a message.

Flower stores and hands over every array of a message by itself, so hundreds of small arrays cost
a round more than their bytes do. All of them travel as one, in the safetensors format.
"""

import hashlib
from collections.abc import Mapping

import torch
from flwr.app import Array, ArrayRecord
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from napari_fedsam.federation.errors import FederationError

PACKED_KEY = "parameters"
_FORMAT = "safetensors"


class PackingError(FederationError):
    """A record that does not hold packed parameters."""


def pack_parameters(state: Mapping[str, Tensor]) -> ArrayRecord:
    """Pack parameters for a message; equal parameters make equal records.

    Parameters
    ----------
    state : mapping of str to Tensor
        Parameters by name.

    Returns
    -------
    ArrayRecord
        One array of bytes, a safetensors file.
    """
    # A copy of each: safetensors wants them contiguous and without shared memory.
    copies = {
        name: state[name].detach().cpu().clone(memory_format=torch.contiguous_format)
        for name in sorted(state)
    }
    data = save(copies)
    return ArrayRecord({PACKED_KEY: Array("uint8", (len(data),), _FORMAT, data)})


def digest_of(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of parameters: their names, types, shapes and bytes."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def unpack_parameters(record: ArrayRecord) -> dict[str, Tensor]:
    """Unpack parameters.

    Parameters
    ----------
    record : ArrayRecord

    Raises
    ------
    PackingError
        When the record was not packed by `pack_parameters`.
    """
    if set(record) != {PACKED_KEY} or record[PACKED_KEY].stype != _FORMAT:
        raise PackingError("The message does not hold parameters packed as agreed.")
    data = record[PACKED_KEY].data
    try:
        parameters: dict[str, Tensor] = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise PackingError("The parameters in the message cannot be read.") from error
    return parameters
