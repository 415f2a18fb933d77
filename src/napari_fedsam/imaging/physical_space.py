"""Which scans lie in the same physical space, so that a point of one is a point of the other."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from napari_fedsam.imaging.display_grid import DisplayGrid, Point
from napari_fedsam.imaging.scan import Scan


@dataclass(frozen=True)
class PhysicalSpace:
    """What tells the coordinates of one scan from those of another; holds no voxel.

    Attributes
    ----------
    name : str
        The scan's name for people.
    unplaced : str
        Why its coordinates mean nothing in the patient; "" where they do.
    patient_key : str or None
        DICOM's PatientID, None when unknown.
    frame_of_reference : str
        DICOM's FrameOfReferenceUID, "" when unknown.
    corners : (Point, Point)
        The smallest and the largest x, y and z (mm) within the scan.
    """

    name: str
    unplaced: str
    patient_key: str | None = field(repr=False)
    frame_of_reference: str = field(repr=False)
    corners: tuple[Point, Point]

    @classmethod
    def of(cls, scan: Scan) -> Self:
        """Return the physical space of a scan."""
        grid = DisplayGrid.of(scan)
        ends = [(-0.5, extent - 0.5) for extent in grid.shape]
        corners = np.array(
            [grid.to_point((z, y, x)) for z in ends[0] for y in ends[1] for x in ends[2]]
        )
        return cls(
            scan.name,
            _why_unplaced(scan),
            scan.patient_key,
            scan.frame_of_reference,
            (_point(corners.min(axis=0)), _point(corners.max(axis=0))),
        )

    def why_apart(self, other: "PhysicalSpace") -> str:
        """Say in one sentence why a point of another scan means nothing in this one.

        Two scans share a space where both name the same DICOM frame of reference. Where one of
        them names none (NIfTI, NRRD, an anonymised series), their coordinates are believed as far
        as the volumes meet.

        Returns
        -------
        str
            "" where the two share a space.
        """
        for space in (self, other):
            if space.unplaced:
                return f"{space.name} is not linked: {space.unplaced}."
        if self.patient_key and other.patient_key and self.patient_key != other.patient_key:
            return f"{self.name} is not linked: {other.name} is of another patient."
        if self.names_frame_with(other):
            if self.frame_of_reference == other.frame_of_reference:
                return ""
            return (
                f"{self.name} is not linked: its DICOM frame of reference is not that of "
                f"{other.name}; register one to the other first."
            )
        if not self._meets(other):
            return f"{self.name} is not linked: by its coordinates it does not meet {other.name}."
        return ""

    def names_frame_with(self, other: "PhysicalSpace") -> bool:
        """Whether both scans name a DICOM frame of reference."""
        return bool(self.frame_of_reference and other.frame_of_reference)

    def _meets(self, other: "PhysicalSpace") -> bool:
        (low, high), (other_low, other_high) = self.corners, other.corners
        return bool(np.all(np.less(low, other_high)) and np.all(np.less(other_low, high)))


def _why_unplaced(scan: Scan) -> str:
    if scan.is_picture:
        return "it is a picture, which has no place in the patient"
    if scan.is_stack_of_frames:
        return "it is a series of frames, which has no place in the patient"
    if not scan.is_anatomical or not scan.spacing_known:
        return "its file does not say where it lies in the patient"
    return ""


def _point(values: np.ndarray) -> Point:
    x, y, z = (float(value) for value in values)
    return x, y, z
