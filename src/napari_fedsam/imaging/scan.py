"""A scan in memory: voxels with their geometry."""

import functools
import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.orientation import DisplayOrientation


@dataclass(frozen=True, eq=False)
class Scan:
    """An image volume, a stack of frames or a picture.

    Attributes
    ----------
    pixels : ndarray
        Shape (z, y, x), any real dtype of at most 32 bits, or (z, y, x, 3) uint8 for colour;
        z is 1 for a picture and counts frames for cine. C-contiguous and read-only.
    geometry : Geometry
        Where the voxels lie; 2-D for a picture, so that its masks are written as pictures.
    name : str
        A name for people and layers, without patient data.
    source : Path
        The file or folder it came from (not in `repr`: file names may hold a patient's name).
    modality : str
        The DICOM word: CT, MR, US, ES, OP, XC, OT, ...; "" when unknown.
    spacing_known : bool
        Whether the spacing is in mm; else it is in pixels.
    is_anatomical : bool
        Whether the direction refers to the patient, so that sides can be named.
    is_stack_of_frames : bool
        Whether z is time (cine) or a page number instead of a place.
    patient_key : str or None
        DICOM's PatientID, kept in memory only (not in `repr`).
    dicom_files : tuple of Path
        The DICOM files that its slices came from, in any order; empty for other formats.
    frame_of_reference : str
        DICOM's FrameOfReferenceUID, "" when unknown: what has the same one lies in the same
        coordinates.

    Raises
    ------
    ValueError
        If the pixels do not have the shape of the geometry, or are neither real numbers of at
        most 32 bits nor 8-bit colour.
    """

    pixels: NDArray[Any] = field(repr=False)
    geometry: Geometry
    name: str
    source: Path = field(repr=False)
    modality: str = ""
    spacing_known: bool = True
    is_anatomical: bool = True
    is_stack_of_frames: bool = False
    patient_key: str | None = field(default=None, repr=False)
    dicom_files: tuple[Path, ...] = field(default=(), repr=False)
    frame_of_reference: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.pixels.shape[:3] != self.geometry.array_shape:
            raise ValueError(
                f"pixels of shape {self.pixels.shape} do not fit {self.geometry.array_shape}"
            )
        if self.pixels.ndim == 4:
            if self.pixels.shape[3] != 3 or self.pixels.dtype != np.uint8:
                raise ValueError("colour pixels are three 8-bit values")
        elif self.pixels.ndim != 3:
            raise ValueError("pixels have the axes (z, y, x) or (z, y, x, colour)")
        if self.pixels.dtype.kind not in "iuf" or self.pixels.dtype.itemsize > 4:
            raise ValueError(f"pixels of type {self.pixels.dtype} are not supported")
        frozen = np.ascontiguousarray(self.pixels).view()
        frozen.flags.writeable = False
        object.__setattr__(self, "pixels", frozen)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The (z, y, x) shape, without colour."""
        return self.geometry.array_shape

    @property
    def is_colour(self) -> bool:
        """Whether the pixels are (z, y, x, 3) uint8."""
        return self.pixels.ndim == 4

    @property
    def is_picture(self) -> bool:
        """Whether this is a single 2-D image."""
        return self.geometry.dimension == 2

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxels along (z, y, x) in `unit`; z is 1 for a picture."""
        x, y, *rest = self.geometry.spacing
        return (rest[0] if rest else 1.0, y, x)

    @property
    def unit(self) -> str:
        """The unit of the spacing: "mm" or "pixel"."""
        return "mm" if self.spacing_known else "pixel"

    @property
    def slice_axis(self) -> int:
        """The array axis (0 = z) across which the slices were acquired.

        The axis with the coarsest spacing; 0 where none is coarser than z by a thousandth, and
        for pictures and stacks of frames.
        """
        if self.is_picture or self.is_stack_of_frames or not self.spacing_known:
            return 0
        coarsest = max(range(3), key=lambda axis: self.spacing[axis])
        return coarsest if self.spacing[coarsest] > 1.001 * self.spacing[0] else 0

    @functools.cached_property
    def orientation(self) -> DisplayOrientation:
        """How to show the scan in radiological convention."""
        if self.is_anatomical and not self.is_picture:
            return DisplayOrientation.from_geometry(self.geometry)
        first = "frame" if self.is_stack_of_frames else "z"
        return DisplayOrientation.unchanged(self.spacing, (first, "y", "x"))

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 (64 hexadecimal digits) of the pixels and the geometry.

        The same on every machine, and whatever the file's name or format. Computed once; it
        reads every voxel, so call it in a worker first.
        """
        little_endian = self.pixels.dtype.newbyteorder("<")
        geometry = self.geometry
        head = (
            f"{little_endian.str} {self.pixels.shape} {geometry.size} {geometry.spacing} "
            f"{geometry.origin} {geometry.direction}"
        )
        digest = hashlib.sha256(head.encode())
        for plane in self.pixels:
            digest.update(memoryview(plane.astype(little_endian, copy=False)).cast("B"))
        return digest.hexdigest()
