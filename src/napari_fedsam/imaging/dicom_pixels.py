"""The pixels of a DICOM file as real values or as RGB.

GDCM inside SimpleITK decodes, converts colours and rescales. It applies one slope and intercept to
a whole file, and inverts MONOCHROME1 before rescaling, so enhanced objects whose frames differ and
inverted physical values are decoded by pydicom and rescaled here.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.pixels import pixel_array
from pydicom.uid import UID

from napari_fedsam.imaging.dicom_headers import Header
from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.files import explained_access
from napari_fedsam.imaging.number_types import at_most_32_bits
from napari_fedsam.imaging.silence import silent_itk, silent_pydicom

Tell = Callable[[NDArray[Any], NDArray[np.bool_]], None]

_GDCM_RESCALES_GROUPS = frozenset(
    {
        pydicom.uid.EnhancedCTImageStorage,
        pydicom.uid.EnhancedMRImageStorage,
        pydicom.uid.EnhancedPETImageStorage,
        pydicom.uid.LegacyConvertedEnhancedCTImageStorage,
        pydicom.uid.LegacyConvertedEnhancedMRImageStorage,
        pydicom.uid.LegacyConvertedEnhancedPETImageStorage,
        pydicom.uid.XRay3DAngiographicImageStorage,
        pydicom.uid.XRay3DCraniofacialImageStorage,
        pydicom.uid.BreastTomosynthesisImageStorage,
    }
)
"""Enhanced objects of which GDCM applies the rescaling in the functional groups."""

_MEASURED = ("CT", "PT")
"""Modalities whose values are physical, so that they are never inverted."""

_WORKERS = 4


def read_frames(headers: Sequence[Header], tell: Tell | None = None) -> NDArray[Any]:
    """Decode files and put their frames one after the other.

    Slope and intercept are applied; YBR and palette colours become RGB; MONOCHROME1 (low values
    white) is inverted so that bright means high, except where the values are physical (CT, PET).

    Parameters
    ----------
    headers : sequence of Header
        Files whose frames have the same size.
    tell : callable, optional
        Is told once, of pixels that are filled file by file, the middle one first, to look at
        meanwhile, and of which are there; for files of one frame each.

    Returns
    -------
    ndarray
        Shape (frames, rows, columns) of at most 32 bits, or (frames, rows, columns, 3) uint8.

    Raises
    ------
    ImagingError
        If a file cannot be decoded, or gray and colour are mixed.
    """
    with silent_itk(), silent_pydicom(), ThreadPoolExecutor(_WORKERS) as pool:
        looking = _Looking(tell, len(headers)) if tell is not None else None
        middle_first = sorted(range(len(headers)), key=lambda index: abs(index - len(headers) // 2))
        decoded: dict[int, NDArray[Any]] = {}
        for index, part in zip(
            middle_first, pool.map(lambda index: _decode(headers[index]), middle_first), strict=True
        ):
            decoded[index] = part
            if looking is not None:
                looking.add(index, part)
    parts = [decoded[index] for index in range(len(headers))]
    if len({part.ndim for part in parts}) > 1:
        raise ImagingError(
            f"{headers[0].path.parent.name} mixes gray and colour slices: open them as series of "
            "their own."
        )
    return np.concatenate(parts)


class _Looking:
    """Slices to look at before all of them are there."""

    def __init__(self, tell: Tell, count: int) -> None:
        self._tell = tell
        self._arrived = np.zeros(count, np.bool_)
        self._pixels: NDArray[Any] | None = None

    def add(self, index: int, part: NDArray[Any]) -> None:
        """Add a decoded slice; the first one says of what kind all are."""
        if self._pixels is None:
            self._pixels = np.zeros((len(self._arrived), *part.shape[1:]), part.dtype)
            self._tell(self._pixels, self._arrived)
        if part.shape[1:] == self._pixels.shape[1:]:
            self._pixels[index] = part[0]
            self._arrived[index] = True


def _decode(header: Header) -> NDArray[Any]:
    array = _by_pydicom(header) if _needs_stored_values(header) else _by_gdcm(header)
    expected = (header.frames, header.rows, header.columns)
    if array.shape[:3] != expected or array.shape[3:] not in ((), (3,)):
        raise _undecodable(header)
    if array.ndim == 4:
        return _eight_bit_colour(array, header)
    return at_most_32_bits(array, header.path)


def _needs_stored_values(header: Header) -> bool:
    """Say whether GDCM would rescale or invert this file in a way that is not ours."""
    if header.photometric == "MONOCHROME1" and header.modality in _MEASURED:
        return True
    rescales = {place.rescale for place in header.places}
    if not header.has_functional_groups or rescales == {(1.0, 0.0)}:
        return False
    return len(rescales) > 1 or header.sop_class not in _GDCM_RESCALES_GROUPS


def _by_gdcm(header: Header) -> NDArray[Any]:
    with explained_access(header.path), header.path.open("rb"):
        pass
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(header.path))
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise _undecodable(header) from error
    array: NDArray[Any] = sitk.GetArrayFromImage(image)
    colour = image.GetNumberOfComponentsPerPixel() > 1
    # A single frame comes with or without a z axis.
    return array[np.newaxis] if array.ndim == (3 if colour else 2) else array


def _by_pydicom(header: Header) -> NDArray[Any]:
    try:
        with explained_access(header.path):
            stored = pixel_array(header.path)
    except ImagingError:
        raise
    except Exception as error:
        raise _undecodable(header) from error
    frames = stored.reshape(header.frames, *stored.shape[-2:])
    slopes, intercepts = np.array([place.rescale for place in header.places], np.float32).T
    values: NDArray[Any] = frames * slopes[:, None, None] + intercepts[:, None, None]
    return values.astype(np.float32)


def _eight_bit_colour(array: NDArray[Any], header: Header) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return array
    if array.dtype != np.uint16:
        raise _undecodable(header)
    return (array >> max(0, header.bits_stored - 8)).astype(np.uint8)


def _undecodable(header: Header) -> ImagingError:
    return ImagingError(
        f"{header.path.name} cannot be decoded ({_syntax_name(header.transfer_syntax)}): it is "
        "truncated, damaged or compressed in an unknown way, so copy it again or export it "
        "uncompressed."
    )


def _syntax_name(uid: str) -> str:
    return UID(uid).name if uid else "no transfer syntax"
