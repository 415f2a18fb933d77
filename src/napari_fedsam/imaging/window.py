"""Window and level: from stored values to 8-bit gray.

The CT presets are those of Radiopaedia's reference article "Windowing (CT)"
(https://radiopaedia.org/articles/windowing-ct) for lung, bone and brain; soft tissue is the
window that MedSAM was trained with. MR uses MedSAM's percentiles (J. Ma et al., "Segment anything
in medical images", Nature Communications 15, 654, 2024, section "Data curation and
pre-processing").
"""

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.imaging.scan import Scan

_SAMPLE = 1 << 20
"""About this many voxels are looked at to choose a window."""

MR_PERCENTILES = (0.5, 99.5)
"""Percentiles of the non-zero voxels between which an MR is shown (Ma et al. 2024)."""


@dataclass(frozen=True)
class Window:
    """The range of stored values that is shown, from black (`low`) to white (`high`)."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"a window needs low < high, not {self.low} and {self.high}")

    @classmethod
    def from_level(cls, level: float, width: float) -> Self:
        """Make a window from radiology's level (centre) and width."""
        return cls(level - width / 2, level + width / 2)

    @property
    def level(self) -> float:
        """The centre of the window."""
        return (self.low + self.high) / 2

    @property
    def width(self) -> float:
        """The extent of the window."""
        return self.high - self.low


CT_PRESETS = MappingProxyType(
    {
        "soft tissue": Window.from_level(40, 400),
        "lung": Window.from_level(-600, 1500),
        "bone": Window.from_level(400, 1800),
        "brain": Window.from_level(40, 80),
    }
)
"""Windows in Hounsfield units by name (sources: the module's docstring)."""

COLOUR_WINDOW = Window(0, 255)


def default_window(scan: Scan) -> Window:
    """Choose the window in which a scan is first shown.

    Colour: 0 to 255. CT: soft tissue. MR: the 0.5 to 99.5 percentiles of its non-zero voxels. A
    volume of unknown modality counts as CT where its values look like Hounsfield units, else as
    MR. Everything else: its smallest to its largest value. Deterministic, and quick on large
    volumes, of which an even sample of about a million voxels is looked at.
    """
    if scan.is_colour:
        return COLOUR_WINDOW
    sample = _sample(scan.pixels)
    if _is_ct(scan, sample):
        return CT_PRESETS["soft tissue"]
    if _is_mr_like(scan):
        return _percentiles(sample, *MR_PERCENTILES)
    return _full_range(sample)


def presets_for(scan: Scan) -> dict[str, Window]:
    """Return the named windows that make sense for a scan, its default first."""
    if scan.is_colour:
        return {"colour": COLOUR_WINDOW}
    sample = _sample(scan.pixels)
    if _is_ct(scan, sample):
        return dict(CT_PRESETS)
    ranges = {"full range": _full_range(sample)}
    low, high = MR_PERCENTILES
    percentiles = {f"percentiles {low} to {high}": _percentiles(sample, low, high)}
    return percentiles | ranges if _is_mr_like(scan) else ranges | percentiles


def apply_window(pixels: NDArray[Any], window: Window) -> NDArray[np.uint8]:
    """Map stored values to 0..255, linearly inside the window and clipped outside.

    Parameters
    ----------
    pixels : ndarray
        Any shape, any real dtype. Values that are not numbers become 0.
    window : Window
        The range shown. 8-bit pixels in the window 0 to 255 keep their values.

    Returns
    -------
    ndarray of uint8
        A new array of the same shape.
    """
    if pixels.dtype == np.uint8 and (window.low, window.high) == (0, 255):
        return np.array(pixels, dtype=np.uint8)
    scaled = pixels.astype(np.float32)
    scaled -= np.float32(window.low)
    scaled *= np.float32(255 / window.width)
    np.nan_to_num(scaled, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    np.clip(scaled, 0, 255, out=scaled)
    np.rint(scaled, out=scaled)
    return scaled.astype(np.uint8)


def _sample(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return about `_SAMPLE` finite values, evenly spread and always the same ones."""
    flat = pixels.reshape(-1)
    step = max(1, flat.size // _SAMPLE)
    # A step that shares a factor with the row length would look at a few columns only.
    while math.gcd(step, pixels.shape[-1]) > 1:
        step += 1
    sample = flat[::step]
    return sample[np.isfinite(sample)] if sample.dtype.kind == "f" else sample


def _is_ct(scan: Scan, sample: NDArray[Any]) -> bool:
    if scan.modality:
        return scan.modality == "CT"
    return not scan.is_picture and scan.spacing_known and _looks_like_hounsfield_units(sample)


def _looks_like_hounsfield_units(sample: NDArray[Any]) -> bool:
    """Guess from the values: air near -1000, and nothing that no CT scanner writes."""
    if sample.size == 0:
        return False
    low, high = float(sample.min()), float(sample.max())
    return -8200 <= low <= -900 and 100 <= high <= 65535


def _is_mr_like(scan: Scan) -> bool:
    unknown_volume = not scan.modality and not scan.is_picture and scan.spacing_known
    return scan.modality == "MR" or unknown_volume


def _percentiles(sample: NDArray[Any], low: float, high: float) -> Window:
    tissue = sample[sample != 0]
    if tissue.size == 0:
        return Window(0, 1)
    bounds = np.percentile(tissue, [low, high])
    return _window(float(bounds[0]), float(bounds[1]))


def _full_range(sample: NDArray[Any]) -> Window:
    return _window(float(sample.min()), float(sample.max())) if sample.size else Window(0, 1)


def _window(low: float, high: float) -> Window:
    return Window(low, high) if high > low else Window(low, low + 1)
