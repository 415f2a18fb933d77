"""What a mask file says: label values, and the structures that they stand for."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.imaging.errors import ImagingError

# Okabe and Ito's palette ("Color Universal Design", 2008) without black; sky blue comes first
# because it stands out on gray images.
PALETTE = ("#56b4e9", "#e69f00", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2")


class StructureLike(Protocol):
    """Anything with a structure's value, name and colour (`#rrggbb`)."""

    @property
    def value(self) -> int:
        """Its value in a mask, 1 to 65535."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def color(self) -> str:
        """Its colour as `#rrggbb`."""


@dataclass(frozen=True)
class MaskStructure:
    """A structure as a mask file names it.

    Attributes
    ----------
    value : int
        Its value in the mask, 1 to 65535.
    name : str
        Its name.
    color : str
        Its colour as `#rrggbb`.
    """

    value: int
    name: str
    color: str


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The content of a mask file on the grid of its scan.

    Attributes
    ----------
    labels : ndarray of uint16
        Shape (z, y, x) of the scan; 0 is background.
    structures : tuple of MaskStructure
        What the values stand for, by value; empty where the format has no names.
    """

    labels: NDArray[np.uint16] = field(repr=False)
    structures: tuple[MaskStructure, ...] = ()


class LabelCanvas:
    """Collects structures voxel by voxel, and notices where two of them claim the same one.

    Parameters
    ----------
    shape : tuple of int
        Shape (z, y, x) of the scan.
    file : str
        Name of the file that is read, for the message.
    structures : iterable of MaskStructure
        What the file holds.
    wanted : str, optional
        A structure's name, in any case: where the file has it, the others are left out.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        file: str,
        structures: Iterable[MaskStructure],
        wanted: str | None = None,
    ) -> None:
        self.labels = np.zeros(shape, np.uint16)
        self._file = file
        self._names = {each.value: each.name for each in structures}
        same = {each for each in self._names if wanted and same_name(self._names[each], wanted)}
        self._drawn = same or set(self._names)

    def add(self, mask: NDArray[np.bool_], value: int, region: Any = ...) -> None:
        """Give a region's voxels under a mask to a structure.

        Raises
        ------
        ImagingError
            If another structure has one of them already.
        """
        if value not in self._drawn:
            return
        here = self.labels[region]
        taken = here[mask]
        others = taken[(taken != 0) & (taken != value)]
        if others.size:
            first, second = self._names[int(others[0])], self._names[value]
            raise ImagingError(
                f"{self._file} holds structures that overlap ('{first}' and '{second}'), but a "
                "mask here has one structure in each voxel: export them without overlap, or take "
                "one by its name as a prompt."
            )
        here[mask] = value


def same_name(first: str, second: str) -> bool:
    """Say whether two structures' names are the same, but for case and spaces around them."""
    return first.strip().casefold() == second.strip().casefold()


def described(
    labels: NDArray[Any], structures: Iterable[StructureLike]
) -> tuple[MaskStructure, ...]:
    """Return the structures of a mask, by value: those given, and made-up ones for other values."""
    known = {each.value: MaskStructure(each.value, each.name, each.color) for each in structures}
    for value in present_values(labels):
        known.setdefault(
            value,
            MaskStructure(value, f"structure {value}", PALETTE[(value - 1) % len(PALETTE)]),
        )
    return tuple(known[value] for value in sorted(known))


def present_values(labels: NDArray[Any]) -> list[int]:
    """Return the values in a mask of uint8 or uint16, in ascending order, without background."""
    counts = np.zeros(int(labels.max(initial=0)) + 1, np.int64)
    for plane in labels:
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    return [int(value) for value in np.flatnonzero(counts) if value]


def distinct_values(wanted: list[int]) -> list[int]:
    """Return a mask value for each structure of a file: the wanted ones if they can be kept.

    Where a value is taken twice or not within 1 to 65535, all are counted from 1.
    """
    if len({value for value in wanted if 1 <= value <= 65535}) == len(wanted):
        return wanted
    return list(range(1, len(wanted) + 1))


def rgb_of(color: str) -> tuple[int, int, int]:
    """Return the red, green and blue (0 to 255) of a colour such as `#56b4e9`."""
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue


def hex_of(rgb: Iterable[float]) -> str:
    """Return `#rrggbb` for red, green and blue from 0 to 255.

    Raises
    ------
    ValueError
        If there are not three, or one lies outside.
    """
    red, green, blue = (round(value) for value in rgb)
    return "#" + bytes((red, green, blue)).hex()
