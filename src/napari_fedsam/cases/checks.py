"""Checks at the door of the training set; each failure is one sentence."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from napari_fedsam.cases.errors import InvalidCaseError

_Kind = TypeVar("_Kind")

# What an NRRD file can hold.
_PIXEL_TYPES = frozenset(
    ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
)


def checked_image(image: object) -> NDArray[Any]:
    """Return a read-only, contiguous copy of (height, width) numbers or (height, width, 3) uint8.

    Raises
    ------
    InvalidCaseError
        For another shape or pixel type, no pixels, or values that are not finite.
    """
    if not isinstance(image, np.ndarray):
        raise InvalidCaseError("The case's image is not an array; give the displayed slice.")
    grey = image.ndim == 2
    colour = image.ndim == 3 and image.shape[2] == 3
    if not (grey or colour) or 0 in image.shape:
        raise InvalidCaseError(
            f"The case's image has the shape {image.shape}; give one slice, (height, width) or "
            "(height, width, 3)."
        )
    if image.dtype.name not in _PIXEL_TYPES:
        raise InvalidCaseError(
            f"The case's image has the pixel type {image.dtype.name}; convert it to whole numbers "
            "or to float32."
        )
    if colour and image.dtype != np.uint8:
        raise InvalidCaseError(
            f"The case's colour image has the pixel type {image.dtype.name}; convert it to uint8."
        )
    if not np.isfinite(image).all():
        raise InvalidCaseError(
            "The case's image holds values that are not finite numbers; repair the scan first."
        )
    return _frozen_copy(image, image.dtype.newbyteorder("="))


def checked_mask(mask: object, image_shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return a read-only copy of a bool mask as large as the image, (height, width)."""
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise InvalidCaseError(
            "The case's mask is not a bool array; compare it with a value first."
        )
    if mask.shape != image_shape[:2]:
        raise InvalidCaseError(
            f"The case's mask has the shape {mask.shape} but its image has {image_shape[:2]}; both "
            "must be of the same slice."
        )
    return _frozen_copy(mask, mask.dtype)


def checked_structure(structure: object, kind: type[_Kind]) -> _Kind:
    """Return the structure when it is one."""
    if not isinstance(structure, kind):
        raise InvalidCaseError("The case has no structure; choose what was segmented.")
    return structure


def checked_window(window: object) -> tuple[float, float]:
    """Return (low, high), finite, low < high."""
    pair = _finite_pair(window)
    if pair is None or not 0 < pair[1] - pair[0] < math.inf:
        raise InvalidCaseError(
            "The case's display window must be two finite numbers, the lower one first."
        )
    return pair


def checked_spacing(spacing: object) -> tuple[float, float] | None:
    """Return (row, column) spacing in mm, both positive, or None."""
    if spacing is None:
        return None
    pair = _finite_pair(spacing)
    if pair is None or min(pair) <= 0:
        raise InvalidCaseError(
            "The case's spacing must be two positive numbers in mm (row, column), or None."
        )
    return pair


def checked_prompts(prompts: object) -> tuple[dict[str, JsonValue], ...]:
    """Return the prompts as plain JSON; points and boxes must have finite coordinates."""
    if isinstance(prompts, str | Mapping) or not isinstance(prompts, Iterable):
        raise InvalidCaseError("The case's prompts must be a list of JSON objects.")
    return tuple(_checked_prompt(prompt) for prompt in prompts)


def _checked_prompt(prompt: object) -> dict[str, JsonValue]:
    if not isinstance(prompt, Mapping) or not isinstance(prompt.get("kind"), str):
        raise InvalidCaseError('Each prompt of a case must be a JSON object with a "kind".')
    kind = prompt["kind"]
    try:
        text = json.dumps(dict(prompt), allow_nan=False, ensure_ascii=False, default=_plain_number)
        plain: dict[str, JsonValue] = json.loads(text.encode())
    except (TypeError, ValueError) as error:
        raise InvalidCaseError(
            f"A {kind} prompt of the case cannot be written as JSON; give plain numbers and text."
        ) from error
    if kind == "point" and not (
        _are_numbers(plain.get("xy"), 2) and isinstance(plain.get("positive"), bool)
    ):
        raise InvalidCaseError(
            'A point prompt needs "xy" (two finite numbers) and "positive" (true or false).'
        )
    if kind == "box" and not _are_numbers(plain.get("xyxy"), 4):
        raise InvalidCaseError('A box prompt needs "xyxy" (four finite numbers).')
    return plain


def checked_scan(key: object) -> str:
    """Return text that identifies a scan, which must not be blank."""
    if not isinstance(key, str) or not key.strip():
        raise InvalidCaseError("The case does not say which scan it comes from; give its key.")
    return key.strip()


def checked_patient(key: object) -> str | None:
    """Return text that identifies a patient; None when it is blank or unknown."""
    if key is not None and not isinstance(key, str):
        raise InvalidCaseError("The case's patient key must be text, or None when unknown.")
    return (key or "").strip() or None


def checked_label(label: object, what: str, longest: int) -> str:
    """Return one printable line of at most `longest` characters; it may be empty."""
    if not isinstance(label, str) or len(label) > longest or not label.isprintable():
        raise InvalidCaseError(
            f"The case's {what} must be one line of at most {longest} printable characters."
        )
    return label.strip()


def checked_count(count: object, what: str) -> int:
    """Return a whole number of at least 0."""
    whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
    if not whole or int(count) < 0:  # type: ignore[call-overload]
        raise InvalidCaseError(f"The case's {what} must be a whole number, 0 or more.")
    return int(count)  # type: ignore[call-overload,no-any-return]


def checked_split(split: object) -> object:
    """Return the split when it is a known one or None."""
    if split not in ("train", "val", None):
        raise InvalidCaseError(
            'The case\'s split must be "train", "val" or None (let it be chosen).'
        )
    return split


def checked_seconds(seconds: object) -> float | None:
    """Return a finite time of at least 0 s, or None."""
    if seconds is None:
        return None
    pair = _finite_pair((seconds, 0))
    if pair is None or pair[0] < 0:
        raise InvalidCaseError("The case's annotation time must be 0 seconds or more.")
    return pair[0]


def _frozen_copy(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    copy = np.array(array, dtype=dtype, order="C", copy=True, subok=False)
    copy.flags.writeable = False
    return copy


def _finite_pair(pair: object) -> tuple[float, float] | None:
    try:
        first, second = (float(number) for number in pair)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return None
    return (first, second) if math.isfinite(first) and math.isfinite(second) else None


def _are_numbers(value: object, count: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == count
        and all(isinstance(item, int | float) and not isinstance(item, bool) for item in value)
    )


def _plain_number(value: object) -> object:
    """Let NumPy numbers and arrays be written as JSON."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
