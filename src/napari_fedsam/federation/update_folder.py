"""Updates on disk: each is written as it arrives and read piece by piece.

So the memory of a round does not grow with the number of sites.
"""

import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from napari_fedsam.federation.messages import SharedSpec
from napari_fedsam.files import make_private_folder

Vector = np.ndarray[Any, np.dtype[np.float32]]

# Values read at once, over all sites: 16 MiB.
_PIECE_VALUES = 4 * 1024 * 1024


class FlatLayout:
    """Shared parameters as one vector, names sorted.

    Parameters
    ----------
    spec : mapping of str to (shape, dtype)
        The recipe's shared parameters.
    """

    def __init__(self, spec: SharedSpec) -> None:
        self._spec = {name: spec[name] for name in sorted(spec)}
        self.size = sum(math.prod(shape) for shape, _ in self._spec.values())

    def flatten(self, state: Mapping[str, Tensor]) -> Vector:
        """Return the parameters as a vector of `size` values."""
        parts = [state[name].detach().reshape(-1).float().numpy() for name in self._spec]
        return np.concatenate(parts)

    def unflatten(self, vector: Vector) -> dict[str, Tensor]:
        """Return the parameters of a vector, in the recipe's shapes and dtypes."""
        state, start = {}, 0
        for name, (shape, dtype) in self._spec.items():
            end = start + math.prod(shape)
            values = torch.from_numpy(np.array(vector[start:end]))
            kind = getattr(torch, str(dtype).removeprefix("torch."))
            state[name] = values.reshape(shape).to(kind)
            start = end
        return state


class UpdateFolder:
    """The updates of one round, as differences to what their sites were sent.

    Parameters
    ----------
    folder : Path
        Made anew; `remove` takes it away.
    size : int
        Values in an update.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self._folder = folder
        self._size = size
        self.norms: dict[str, float] = {}
        shutil.rmtree(folder, ignore_errors=True)
        make_private_folder(folder)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites whose updates are here, in the order of arrival."""
        return tuple(self.norms)

    def add(self, site: str, update: Vector) -> None:
        """Write an update and note its L2 norm."""
        update.astype(np.float32).tofile(self._path(site))
        self.norms[site] = math.sqrt(math.fsum(_square(part) for part in self._pieces_of(update)))

    def discard(self, site: str) -> None:
        """Forget an update."""
        del self.norms[site]
        self._path(site).unlink(missing_ok=True)

    def pieces(self, sites: Sequence[str]) -> Iterator[tuple[slice, list[Vector]]]:
        """Yield the same piece of every site's update, from the first value to the last."""
        step = max(1, _PIECE_VALUES // max(1, len(sites)))
        for start in range(0, self._size, step):
            piece = slice(start, min(start + step, self._size))
            yield piece, [self._read(site, piece) for site in sites]

    def inner_products(self, sites: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the matrix of inner products between the sites' updates."""
        products = np.zeros((len(sites), len(sites)))
        for _, parts in self.pieces(sites):
            stacked = np.asarray(parts, dtype=np.float64)
            products += stacked @ stacked.T
        return products

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self, site: str, piece: slice) -> Vector:
        values: Vector = np.fromfile(
            self._path(site),
            dtype=np.float32,
            count=piece.stop - piece.start,
            offset=piece.start * np.dtype(np.float32).itemsize,
        )
        return values

    def _path(self, site: str) -> Path:
        return self._folder / f"{site}.float32"

    @staticmethod
    def _pieces_of(update: Vector) -> Iterator[Vector]:
        for start in range(0, len(update), _PIECE_VALUES):
            yield update[start : start + _PIECE_VALUES]


def _square(part: Vector) -> float:
    exact = part.astype(np.float64)
    return float(exact @ exact)
