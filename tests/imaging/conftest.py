"""Small synthetic DICOM files and other parts for the imaging tests. No real patients."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

PATIENT_NAME = "PLANTED^NAME"
PATIENT_ID = "PLANTED-4711"
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@pytest.fixture
def data_folder() -> Path:
    """Return the folder of external scans, or skip."""
    folder = os.environ.get("NAPARI_FEDSAM_DATA")
    if not folder or not Path(folder, "scans").is_dir():
        pytest.skip("NAPARI_FEDSAM_DATA does not name the external data folder")
    return Path(folder)


@pytest.fixture
def dicom(tmp_path: Path) -> "DicomFiles":
    """Return a maker of DICOM files in a folder of their own."""
    folder = tmp_path / "study"
    folder.mkdir()
    return DicomFiles(folder)


class DicomFiles:
    """Writes synthetic DICOM files into a folder.

    Every method takes attributes to set (or, with the value None, to remove) by keyword.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.study_uid = generate_uid()

    def series(
        self,
        values: NDArray[Any],
        *,
        spacing: float = 2.0,
        orientation: Sequence[float] = AXIAL,
        origin: Sequence[float] = (-10.0, -20.0, 30.0),
        prefix: str = "IM",
        **attributes: Any,
    ) -> list[Path]:
        """Write (n, rows, columns) values as parallel slices along the normal.

        File names and instance numbers run against the positions, so that sorting by either of
        them gives the wrong order.
        """
        shared = {"SeriesInstanceUID": generate_uid(), "SeriesNumber": 3} | attributes
        normal = np.cross(orientation[:3], orientation[3:])
        count = len(values)
        return [
            self.slice(
                f"{prefix}{count - i:03d}",
                values[i],
                position=np.array(origin) + i * spacing * normal,
                orientation=orientation,
                InstanceNumber=count - i,
                **shared,
            )
            for i in range(count)
        ]

    def slice(
        self,
        name: str,
        values: NDArray[Any],
        *,
        position: Sequence[float] | NDArray[Any] = (0.0, 0.0, 0.0),
        orientation: Sequence[float] = AXIAL,
        **attributes: Any,
    ) -> Path:
        """Write one placed CT slice."""
        placed = {
            "ImagePositionPatient": [round(float(v), 9) for v in position],
            "ImageOrientationPatient": [round(float(v), 12) for v in orientation],
            "PixelSpacing": [0.7, 0.5],
            "SliceThickness": 2.0,
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            "Modality": "CT",
        }
        return self.write(name, values, CTImageStorage, **(placed | attributes))

    def picture(self, name: str, values: NDArray[Any], **attributes: Any) -> Path:
        """Write an ultrasound picture or cine without a place in the patient."""
        colour = values.ndim > 2 and values.shape[-1] == 3
        multi = values.ndim == (4 if colour else 3)
        sop = UltrasoundMultiFrameImageStorage if multi else UltrasoundImageStorage
        if colour:
            attributes = {"PhotometricInterpretation": "RGB"} | attributes
        return self.write(name, values, sop, **({"Modality": "US"} | attributes))

    def enhanced(
        self,
        name: str,
        values: NDArray[Any],
        positions: Sequence[Sequence[float]],
        *,
        rescale: Sequence[tuple[float, float]] | None = None,
        sop_class: str = EnhancedMRImageStorage,
        **attributes: Any,
    ) -> Path:
        """Write an enhanced multi-frame object; one rescale for all frames, or one for each."""
        shared = Dataset()
        shared.PixelMeasuresSequence = [_dataset(PixelSpacing=[0.7, 0.5], SliceThickness=4.0)]
        shared.PlaneOrientationSequence = [_dataset(ImageOrientationPatient=list(AXIAL))]
        groups = []
        for position in positions:
            group = Dataset()
            group.PlanePositionSequence = [_dataset(ImagePositionPatient=list(position))]
            groups.append(group)
        holders = groups if rescale and len(rescale) > 1 else [shared]
        for holder, (slope, intercept) in zip(holders, rescale or [], strict=False):
            holder.PixelValueTransformationSequence = [
                _dataset(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US")
            ]
        grouped = {
            "Modality": "MR",
            "SharedFunctionalGroupsSequence": [shared],
            "PerFrameFunctionalGroupsSequence": groups,
        }
        return self.write(name, values, sop_class, **(grouped | attributes))

    def jpeg(self, name: str, colour: NDArray[Any], kind: str, **options: Any) -> Path:
        """Write an 8-bit colour picture compressed by Pillow ("JPEG" or "JPEG2000")."""
        stream = io.BytesIO()
        Image.fromarray(colour).save(stream, kind, **options)
        photometric = "YBR_RCT" if kind == "JPEG2000" else "YBR_FULL_422"
        syntax = JPEG2000Lossless if kind == "JPEG2000" else JPEGBaseline8Bit
        return self.write(
            name,
            colour,
            SecondaryCaptureImageStorage,
            syntax=syntax,
            PixelData=encapsulate([stream.getvalue()]),
            PhotometricInterpretation=photometric,
            Modality="OT",
        )

    def write(
        self,
        name: str,
        values: NDArray[Any],
        sop_class: str,
        *,
        syntax: str = ExplicitVRLittleEndian,
        rle: bool = False,
        **attributes: Any,
    ) -> Path:
        """Write values (frames, rows, columns, colour; first and last optional)."""
        colour = values.ndim > 2 and values.shape[-1] == 3
        rows, columns = values.shape[-3:-1] if colour else values.shape[-2:]
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.MediaStorageSOPClassUID = sop_class
        dataset.file_meta.TransferSyntaxUID = syntax
        described: dict[str, Any] = {
            "SOPClassUID": sop_class,
            "SOPInstanceUID": generate_uid(),
            "StudyInstanceUID": self.study_uid,
            "SeriesInstanceUID": generate_uid(),
            "SeriesDescription": f"free text about {PATIENT_NAME}",
            "PatientName": PATIENT_NAME,
            "PatientID": PATIENT_ID,
            "Rows": rows,
            "Columns": columns,
            "SamplesPerPixel": 3 if colour else 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 8 * values.itemsize,
            "BitsStored": 8 * values.itemsize,
            "HighBit": 8 * values.itemsize - 1,
            "PixelRepresentation": int(values.dtype.kind == "i"),
            "PixelData": values.tobytes() + b"\0" * (values.nbytes % 2),
        }
        if colour:
            described["PlanarConfiguration"] = 0
        if values.ndim == (4 if colour else 3):
            described["NumberOfFrames"] = len(values)
        for keyword, value in (described | attributes).items():
            if value is not None:
                setattr(dataset, keyword, value)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID") or "1.2.3"
        if "PixelData" in attributes and syntax != ExplicitVRLittleEndian:
            dataset["PixelData"].is_undefined_length = True
        if rle:
            dataset.compress(RLELossless)
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(path, enforce_file_format=True)
        return path


def _dataset(**attributes: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset
