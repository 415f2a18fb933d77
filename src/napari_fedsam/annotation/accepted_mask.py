"""Which mask a slice gets when an answer is accepted on top of what is there already."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_fedsam.annotation.ask import Ask, Click, Painting, Path, Scribble
from napari_fedsam.annotation.drawing import pixels_of_line
from napari_fedsam.sam.prompts import box_of_mask

Mask = NDArray[np.bool_]


def accepted_mask(present: Mask, answer: Mask, ask: Ask) -> Mask:
    """Put an answer in the place of what it corrects, and leave everything else.

    Parameters
    ----------
    present : bool array of shape (H, W)
        The structure on the slice so far, painting by hand included.
    answer : bool array of shape (H, W)
        The model's answer.
    ask : Ask
        What was asked.

    Returns
    -------
    bool array of shape (H, W)
        The answer and, of what is present, the objects that it does not touch and the pixels
        outside the prompted region (the rectangle that holds the answer, the prompts, and what
        was erased of the objects that it touches). Of an object that a negative prompt struck
        only what is in the answer stays, however far it reaches, and so it is with every pixel
        that was erased.
    """
    objects, _ = ndimage.label(present)
    erased = _erased(ask, answer)
    corrected = _objects_at(objects, answer | _pointed(ask, answer, positive=True))
    struck = _objects_at(objects, _pointed(ask, answer, positive=False))
    replaced = corrected & _region(answer | (corrected & erased), ask)
    result: Mask = answer | (present & ~(replaced | struck | erased))
    return result


def _objects_at(objects: NDArray[np.int32], pixels: Mask) -> Mask:
    """Return the objects that have some of the pixels."""
    found: Mask = np.isin(objects, objects[pixels]) & (objects > 0)
    return found


def _erased(ask: Ask, answer: Mask) -> Mask:
    """Return what was erased by hand; whatever was put back since is in the answer."""
    erased = np.zeros_like(answer)
    for each in ask.corrections:
        if isinstance(each, Painting):
            erased |= each.removed.unpacked()
    return erased


def _pointed(ask: Ask, answer: Mask, *, positive: bool) -> Mask:
    """Return the pixels under clicks and scribbles of one kind."""
    height, width = answer.shape
    pointed = np.zeros_like(answer)
    for each in _pointers(ask):
        if each.positive is positive:
            # A click on the last pixel's far border still means that pixel.
            inside = np.clip(_path(each), 0, (width - 1, height - 1)).tolist()
            pointed |= pixels_of_line(inside, (height, width))
    return pointed


def _pointers(ask: Ask) -> list[Click | Scribble]:
    return [each for each in ask.corrections if not isinstance(each, Painting)]


def _path(each: Click | Scribble) -> Path:
    return each.points if isinstance(each, Click) else each.path


def _region(held: Mask, ask: Ask) -> Mask:
    """Return the rectangle around some pixels and all prompts."""
    if ask.mask is not None:
        held = held | ask.mask.unpacked()
    around = box_of_mask(held)
    boxes = ask.boxes if around is None else (*ask.boxes, around)
    xy = [corner for x0, y0, x1, y1 in boxes for corner in ((x0, y0), (x1, y1))]
    xy += [point for outline in ask.lassos for point in outline]
    xy += [point for each in _pointers(ask) for point in _path(each)]
    region = np.zeros_like(held)
    if xy:
        (x0, y0), (x1, y1) = np.min(xy, axis=0), np.max(xy, axis=0)
        low_x, low_y = max(round(x0), 0), max(round(y0), 0)
        region[low_y : round(y1) + 1, low_x : round(x1) + 1] = True
    return region
