"""Run-length codes of binary masks, as COCO defines them.

A mask is read column by column; the code counts the pixels of each run, beginning with a run of
background, which is 0 long where the first pixel is foreground.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_BITS, _SIGN, _MORE, _FIRST_CHARACTER = 5, 0x10, 0x20, 48
_VALUE = (1 << _BITS) - 1


def encode_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Return the lengths of the runs of a mask of shape (H, W)."""
    pixels = mask.ravel(order="F")
    borders = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    lengths = np.diff(np.concatenate(([0], borders, [pixels.size]))).tolist()
    return [0, *lengths] if pixels[0] else lengths


def decode_runs(counts: Sequence[int], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of shape (H, W) whose runs have these lengths.

    Raises
    ------
    ValueError
        If a length is not a whole number from 0, or they do not add up to the mask's size.
    """
    if any(type(count) is not int or count < 0 for count in counts):
        raise ValueError("run lengths are whole numbers from 0")
    if sum(counts) != shape[0] * shape[1]:
        raise ValueError(f"the run lengths do not add up to {shape[0]} x {shape[1]} pixels")
    foreground = np.arange(len(counts)) % 2 == 1
    return np.repeat(foreground, counts).reshape(shape, order="F")


def runs_from_text(text: str) -> list[int]:
    """Return the run lengths that COCO's compressed text stands for.

    From the fourth on, each number is the difference to the one two before. It is written in
    groups of five bits, the lowest first, each as the character 48 higher, with a sixth bit set
    where more groups follow; the last group's fifth bit is the sign.

    Raises
    ------
    ValueError
        If the text holds other characters or ends within a number.
    """
    counts: list[int] = []
    number = shift = 0
    for character in text:
        group = ord(character) - _FIRST_CHARACTER
        if not 0 <= group < 2 * _MORE:
            raise ValueError("the run lengths hold an unknown character")
        number |= (group & _VALUE) << shift
        shift += _BITS
        if group & _MORE:
            continue
        if group & _SIGN:
            number -= 1 << shift
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = shift = 0
    if shift:
        raise ValueError("the run lengths end within a number")
    return counts
