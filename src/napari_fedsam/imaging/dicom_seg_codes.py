"""What DICOM calls a structure: labels, codes and colours of segments."""

import re
from collections.abc import Iterable
from typing import Any

from napari_fedsam.imaging.segmentation import (
    PALETTE,
    MaskStructure,
    distinct_values,
    hex_of,
    rgb_of,
)

_LABEL_LENGTH = 64
_DESCRIPTION = re.compile(r"napari-fedsam value (\d{1,5}): (.*)", re.DOTALL)
_CODED_ORGANS = (
    "Aorta",
    "Bladder",
    "Bone",
    "Brain",
    "Gallbladder",
    "Heart",
    "Kidney",
    "Liver",
    "Lung",
    "Pancreas",
    "Prostate",
    "Spleen",
    "Stomach",
)
"""Names that SNOMED CT has a code for; every other structure is coded as tissue."""


def segment_description(number: int, structure: MaskStructure, version: str) -> Any:
    """Return a segment's `highdicom.seg.SegmentDescription`.

    Segments are counted from 1 without gaps, and their labels are short; the structure's own
    value and name are kept in the free-text description.

    Parameters
    ----------
    number : int
        The segment's number.
    structure : MaskStructure
        What it is.
    version : str
        This program's.
    """
    import highdicom
    from pydicom.sr.codedict import codes

    organ = structure.name.strip().capitalize()
    known = organ in _CODED_ORGANS
    description = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=structure.name.replace("\\", "/")[:_LABEL_LENGTH],
        segmented_property_category=(codes.SCT.AnatomicalStructure if known else codes.SCT.Tissue),
        segmented_property_type=getattr(codes.SCT, organ) if known else codes.SCT.Tissue,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="napari-fedsam", version=version, family=codes.DCM.ArtificialIntelligence
        ),
        display_color=highdicom.color.CIELabColor.from_rgb(*rgb_of(structure.color)),
    )
    description.SegmentDescription = f"napari-fedsam value {structure.value}: {structure.name}"
    return description


def structures_by_segment(descriptions: Iterable[Any]) -> dict[int, MaskStructure]:
    """Return the structures of a SegmentSequence by segment number.

    Values are those that this program noted, else the segment numbers.

    Raises
    ------
    AttributeError, TypeError, ValueError
        If a description lacks what it must have.
    """
    # A label map may describe its background, too.
    items = [item for item in descriptions if int(item.SegmentNumber) > 0]
    noted = [_DESCRIPTION.fullmatch(str(item.get("SegmentDescription") or "")) for item in items]
    values = distinct_values(
        [int(note[1]) for note in noted if note]
        if all(noted)
        else [int(item.SegmentNumber) for item in items]
    )
    return {
        int(item.SegmentNumber): MaskStructure(
            value, note[2] if note else str(item.SegmentLabel), _color_of(item, value)
        )
        for item, note, value in zip(items, noted, values, strict=True)
    }


def _color_of(item: Any, value: int) -> str:
    import highdicom

    stored = item.get("RecommendedDisplayCIELabValue")
    if not stored:
        return PALETTE[(value - 1) % len(PALETTE)]
    return hex_of(highdicom.color.CIELabColor.from_dicom_value(tuple(stored)).to_rgb())
