"""What a case is: the correction that a person accepted, and where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints, field_validator

from napari_fedsam.cases.checks import (
    checked_count,
    checked_image,
    checked_label,
    checked_mask,
    checked_patient,
    checked_prompts,
    checked_scan,
    checked_seconds,
    checked_spacing,
    checked_split,
    checked_structure,
    checked_window,
)

SCHEMA_VERSION: Final = 1

Split = Literal["train", "val"]

_Hex16 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
_Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
_Size = Annotated[int, Field(ge=1)]


class Structure(BaseModel):
    """A named class that is being segmented.

    Attributes
    ----------
    value : int
        Its value in a Labels layer, 1 to 255.
    name : str
        Its name, 1 to 80 printable characters.
    color : str
        Its colour as `#rrggbb`.
    definition : str
        The rule under which it is outlined (what belongs to it and what does not).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: int = Field(ge=1, le=255)
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=80)]
    color: Annotated[str, StringConstraints(to_lower=True, pattern=r"^#[0-9a-fA-F]{6}$")]
    definition: str = ""

    @field_validator("name")
    @classmethod
    def _name_is_printable(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError("a structure's name must be printable text on one line")
        return name


@dataclass(frozen=True, eq=False, kw_only=True)
class NewCase:
    """A correction that is about to be kept.

    Arrays are copied, so that drawing may go on while the case is being written.

    Parameters
    ----------
    image : ndarray
        Raw values as displayed, before windowing: (height, width) of a real number type, finite,
        or (height, width, 3) uint8 colour.
    mask : ndarray of bool, shape (height, width)
        The accepted mask; all False says that the structure is absent here.
    structure : Structure
        What was segmented, and under which definition.
    window : (float, float)
        Lowest and highest displayed value, low < high.
    spacing : (float, float) or None
        Row and column spacing in mm; None when unknown (pictures).
    prompts : sequence of mappings
        What the person gave, as JSON, coordinates (x, y) in pixels of `image`:
        `{"kind": "point", "xy": [x, y], "positive": true}`,
        `{"kind": "box", "xyxy": [x0, y0, x1, y1]}`, `{"kind": "none"}`, or another `kind`.
    scan_key, patient_key : str, str or None
        Stable text that identifies the scan and the patient. Only keyed hashes of them are kept;
        without a patient the scan stands for it.
    modality : str
        DICOM word (CT, MR, US, ES, OP, XC, OT), or "" when unknown.
    plane : str
        The displayed plane, for instance "axial"; "" for pictures.
    slice_index : int
        Which slice of the scan, counted from 0 along the plane's axis.
    annotator : str
        Who accepted the mask.
    model : str
        Label of the model version that proposed the mask.
    split : {"train", "val"} or None
        None lets the store decide, see `napari_fedsam.cases.split.choose_split`.
    seconds, clicks : float or None, int or None
        How long the annotation took and how many prompts it needed.

    Raises
    ------
    InvalidCaseError
        When any of this does not hold; the sentence names what.
    """

    image: NDArray[Any] = field(repr=False)
    mask: NDArray[np.bool_] = field(repr=False)
    structure: Structure
    window: tuple[float, float]
    scan_key: str = field(repr=False)
    spacing: tuple[float, float] | None = None
    prompts: tuple[dict[str, JsonValue], ...] | list[dict[str, Any]] = ()
    patient_key: str | None = field(default=None, repr=False)
    modality: str = ""
    plane: str = ""
    slice_index: int = 0
    annotator: str = ""
    model: str = ""
    split: Split | None = None
    seconds: float | None = None
    clicks: int | None = None

    def __post_init__(self) -> None:
        image = checked_image(self.image)
        checked: Mapping[str, object] = {
            "image": image,
            "mask": checked_mask(self.mask, image.shape),
            "structure": checked_structure(self.structure, Structure),
            "window": checked_window(self.window),
            "spacing": checked_spacing(self.spacing),
            "prompts": checked_prompts(self.prompts),
            "scan_key": checked_scan(self.scan_key),
            "patient_key": checked_patient(self.patient_key),
            "modality": checked_label(self.modality, "modality", 16),
            "plane": checked_label(self.plane, "plane", 32),
            "slice_index": checked_count(self.slice_index, "slice index"),
            "annotator": checked_label(self.annotator, "annotator", 200),
            "model": checked_label(self.model, "model", 200),
            "split": checked_split(self.split),
            "seconds": checked_seconds(self.seconds),
            "clicks": None if self.clicks is None else checked_count(self.clicks, "click count"),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)


class CaseRecord(BaseModel):
    """What is known of a case without opening its pixels (the file `case.json`).

    Attributes
    ----------
    schema_version : int
        Layout of the record.
    id : str
        Random, 16 hexadecimal digits; derived from nothing.
    created : str
        When it was accepted: ISO 8601, UTC.
    structure : Structure
        What was segmented, under which definition.
    absent : bool
        The structure is not in this image (the mask is empty).
    split : {"train", "val"}
        Fixed at acceptance.
    scan, patient : str
        Pseudonyms; `patient` equals `scan` when the patient is unknown. No patient's cases are in
        both splits.
    annotator : str
        Who accepted the mask.
    window : (float, float)
        Lowest and highest displayed value.
    spacing : (float, float) or None
        Row and column spacing in mm; None when unknown.
    shape : tuple of int
        (height, width) or (height, width, 3).
    prompts : tuple of dict
        What the person gave, see `NewCase`.
    modality, plane, slice_index, model, seconds, clicks
        As in `NewCase`.
    files : dict of str to str
        SHA-256 of each other file of the case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: Literal[1] = SCHEMA_VERSION
    id: _Hex16
    created: str
    structure: Structure
    absent: bool
    split: Split
    scan: _Hex16
    patient: _Hex16
    annotator: str
    window: tuple[float, float]
    spacing: tuple[float, float] | None
    shape: tuple[_Size, _Size] | tuple[_Size, _Size, Literal[3]]
    prompts: tuple[dict[str, JsonValue], ...]
    modality: str
    plane: str
    slice_index: Annotated[int, Field(ge=0)]
    model: str
    seconds: float | None = None
    clicks: int | None = None
    files: dict[str, _Sha256]

    @field_validator("created")
    @classmethod
    def _created_is_utc(cls, created: str) -> str:
        if datetime.fromisoformat(created).utcoffset() != timedelta(0):
            raise ValueError("created must be a UTC time")
        return created

    @property
    def created_at(self) -> datetime:
        """When the case was accepted, as an aware UTC time."""
        return datetime.fromisoformat(self.created)

    @property
    def height_and_width(self) -> tuple[int, int]:
        """Size of the mask in pixels."""
        return self.shape[0], self.shape[1]


@dataclass(frozen=True, eq=False)
class Case:
    """A verified case with its pixels.

    Attributes
    ----------
    record : CaseRecord
        Provenance.
    image : ndarray
        Raw values, shape `record.shape`.
    mask : ndarray of bool
        Shape (height, width).
    """

    record: CaseRecord
    image: NDArray[Any] = field(repr=False)
    mask: NDArray[np.bool_] = field(repr=False)


@dataclass(frozen=True)
class BrokenCase:
    """A case that must not be used, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class DeletionReport:
    """What a deletion removed, and in plain words what it cannot remove.

    Attributes
    ----------
    ids : tuple of str
        The cases that are gone.
    remains : str
        Where their influence may still be found.
    """

    ids: tuple[str, ...]
    remains: str
