"""NIfTI, NRRD and MetaImage through SimpleITK."""

import contextlib
import gzip
import math
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.files import explained_access, stem_of, suffix_of
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.integrity import require_complete
from napari_fedsam.imaging.nifti_header import HEADER_BYTES, NiftiHeader
from napari_fedsam.imaging.nifti_slices import NiftiSlices
from napari_fedsam.imaging.number_types import at_most_32_bits
from napari_fedsam.imaging.silence import silent_itk

# Deflate packs no more than 1032 bytes into one: a header that promises more is damaged.
_MOST_COMPRESSED = 1032

_WITH_SECOND_FILE = (".nhdr", ".mhd")


@dataclass(frozen=True, eq=False)
class Volume:
    """The content of a volume file.

    Attributes
    ----------
    pixels : ndarray
        Shape (z, y, x) of at most 32 bits, or (z, y, x, 3) uint8.
    geometry : Geometry
        2-D where the file is 2-D.
    is_anatomical : bool
        Whether the file says how its axes lie in the patient.
    """

    pixels: NDArray[Any]
    geometry: Geometry
    is_anatomical: bool


@dataclass(frozen=True, eq=False)
class LabelLayers:
    """The content of a volume file that may hold several values in each voxel.

    Attributes
    ----------
    layers : ndarray
        Shape (layers, z, y, x).
    geometry : Geometry
        2-D where the file is 2-D.
    """

    layers: NDArray[Any]
    geometry: Geometry


@dataclass(frozen=True, eq=False)
class ArrivingVolume:
    """A volume whose slices are still being read; see `Volume`.

    Attributes
    ----------
    volume : Volume
        Its pixels are filled from the first slice on.
    arrived : ndarray of bool
        Shape (z,), which slices are there.
    """

    volume: Volume
    arrived: NDArray[np.bool_]


def read_volume(path: Path, watch: Callable[[ArrivingVolume], None] | None = None) -> Volume:
    """Read a NIfTI, NRRD or MetaImage file of two or three dimensions.

    Rescaling that the file asks for (NIfTI's scl_slope) is applied. Trailing dimensions of
    length one are dropped. An alpha channel is dropped.

    Parameters
    ----------
    path : Path
    watch : callable, optional
        Is told of a compressed NIfTI volume before its voxels arrive, in this thread.

    Raises
    ------
    ImagingError
        If the file is missing, unreadable, not an image, incomplete, sheared, of four or more
        dimensions, or neither gray nor 8-bit colour.
    """
    slices = _slices_of(path) if watch is not None else None
    with _opened(path, slices) as reader:
        if watch is not None and slices is not None:
            _tell(watch, reader, slices)
        image, geometry = _executed(reader, path)
        pixels = _pixels(image, path)
        return Volume(
            pixels.reshape(geometry.array_shape + pixels.shape[geometry.dimension :]),
            geometry,
            _is_anatomical(reader, suffix_of(path)),
        )


def read_label_layers(path: Path) -> LabelLayers:
    """Read a volume file whose voxels hold one value in each of several layers.

    Raises
    ------
    ImagingError
        As `read_volume`, but for the number of values in a voxel.
    """
    with _opened(path) as reader:
        image, geometry = _executed(reader, path)
        array: NDArray[Any] = sitk.GetArrayFromImage(image)
        layers = array.reshape(*geometry.array_shape, -1)
        return LabelLayers(np.moveaxis(layers, -1, 0), geometry)


def read_notes(path: Path) -> dict[str, str]:
    """Read the named notes in a volume file's header (NRRD's key/value pairs), not its voxels.

    Raises
    ------
    ImagingError
        If the file is missing, unreadable, incomplete, or not an image.
    """
    with _opened(path) as reader:
        # ITK does not find keys again that are no UTF-8; ours are ASCII.
        keys = [key for key in reader.GetMetaDataKeys() if key.isascii()]
        return {key: _as_text(reader.GetMetaData(key)) for key in keys}


def _as_text(note: str) -> str:
    """Return a note whose bytes were no UTF-8, as older programs write them, as Latin-1."""
    stored = note.encode("utf-8", "surrogateescape")
    try:
        return stored.decode("utf-8")
    except UnicodeDecodeError:
        return stored.decode("latin-1")


def _slices_of(path: Path) -> NiftiSlices | None:
    """Return what makes slices of a compressed NIfTI volume, None where that cannot be done."""
    if suffix_of(path) != ".nii.gz":
        return None
    try:
        with gzip.open(path, "rb") as handle:
            header = NiftiHeader.parse(handle.read(HEADER_BYTES))
        most = _MOST_COMPRESSED * path.stat().st_size
    except (OSError, EOFError, zlib.error):
        # The reader says what is wrong.
        return None
    if header is None or not NiftiSlices.can_show(header) or (header.file_bytes or 0) > most:
        return None
    return NiftiSlices(header)


def _tell(watch: Callable[[ArrivingVolume], None], reader: Any, slices: NiftiSlices) -> None:
    z, y, x = slices.pixels.shape
    if tuple(reader.GetSize()) != (x, y, z):
        return
    # A damaged header is explained when the voxels have been read.
    with contextlib.suppress(ValueError):
        volume = Volume(
            slices.pixels, Geometry.from_image(reader), _is_anatomical(reader, ".nii.gz")
        )
        watch(ArrivingVolume(volume, slices.arrived))


@contextlib.contextmanager
def _opened(path: Path, slices: NiftiSlices | None = None) -> Iterator[Any]:
    """Yield an ITK reader that has read the header; its failures become sentences."""
    with explained_access(path), path.open("rb"):
        pass
    with _complete(path, slices), silent_itk(), _unambiguous(path) as readable:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(readable))
        try:
            reader.ReadImageInformation()
            yield reader
        except RuntimeError as error:
            raise _explained(error, path) from error


@contextlib.contextmanager
def _complete(path: Path, slices: NiftiSlices | None) -> Iterator[None]:
    """Check that the file is complete: beforehand or, where all of it has to be read, meanwhile."""
    if suffix_of(path) != ".nii.gz":
        require_complete(path)
        yield
        return
    with ThreadPoolExecutor(1) as thread:
        take = slices.take if slices is not None else lambda _: None
        check = thread.submit(require_complete, path, take)
        try:
            yield
        finally:
            # Missing voxels explain whatever else went wrong.
            check.result()


def _executed(reader: Any, path: Path) -> tuple[Any, Geometry]:
    _drop_trailing_dimensions(reader, path)
    image = reader.Execute()
    try:
        return image, Geometry.from_image(image)
    except ValueError as error:
        raise ImagingError(
            f"{path.name} has a damaged header ({error}): export it again."
        ) from error


@contextlib.contextmanager
def _unambiguous(path: Path) -> Iterator[Path]:
    """Yield a name under which ITK reads this very file.

    For a.nii.gz beside an a.nii, ITK takes the header of the one and the voxels of the other
    (https://github.com/InsightSoftwareConsortium/ITK/issues/2243), and it does not know most
    suffixes in capitals. Such a file is read through a link (a copy where links are not
    possible) in a private folder.
    """
    suffix = suffix_of(path)
    has_twin = suffix == ".nii.gz" and any(
        path.with_name(stem_of(path) + other).exists() for other in (".nii", ".NII")
    )
    if suffix in _WITH_SECOND_FILE or (path.name.endswith(suffix) and not has_twin):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder, explained_access(path):
        alias = Path(folder, f"scan{suffix}")
        try:
            os.link(path.resolve(), alias)
        except OSError:
            shutil.copyfile(path, alias)
        yield alias


def _drop_trailing_dimensions(reader: Any, path: Path) -> None:
    size = tuple(reader.GetSize())
    if len(size) <= 3:
        return
    if math.prod(size[3:]) > 1:
        extent = " x ".join(str(n) for n in size)
        raise ImagingError(
            f"{path.name} has {len(size)} dimensions ({extent}): export one time point or "
            "channel as a 3-D file and open that."
        )
    reader.SetExtractSize([*size[:3], *[0] * (len(size) - 3)])


def _explained(error: RuntimeError, path: Path) -> ImagingError:
    text = str(error)
    if "orthonormal" in text or "Bad direction" in text:
        return ImagingError(
            f"{path.name} has axes that are sheared or do not fit its dimensions, which a voxel "
            "grid cannot show undistorted: resample it to a rectangular 3-D grid first."
        )
    if "Unable to determine ImageIO reader" in text:
        return ImagingError(
            f"{path.name} is not an image, or it is damaged: open a file that is really "
            f"{_FORMATS[suffix_of(path)]}."
        )
    return ImagingError(
        f"{path.name} is truncated or damaged and cannot be read: copy or export it again."
    )


_FORMATS = {
    ".nii": "NIfTI",
    ".nii.gz": "compressed NIfTI",
    ".nrrd": "NRRD",
    ".nhdr": "NRRD",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
}


def _pixels(image: Any, path: Path) -> NDArray[Any]:
    array: NDArray[Any] = sitk.GetArrayFromImage(image)
    channels = image.GetNumberOfComponentsPerPixel()
    if array.dtype.kind == "c":
        raise ImagingError(
            f"{path.name} holds complex numbers: export the magnitude and open that."
        )
    if channels == 1:
        return at_most_32_bits(array.reshape(image.GetSize()[::-1]), path)
    if channels not in (3, 4) or array.dtype != np.uint8:
        raise ImagingError(
            f"{path.name} has {channels} values of type {array.dtype} in each voxel: only gray "
            "and 8-bit colour can be shown, so export one channel."
        )
    return array[..., :3]


def _is_anatomical(reader: Any, suffix: str) -> bool:
    """Say whether the header relates the axes to the patient."""
    keys = set(reader.GetMetaDataKeys())
    if suffix.startswith(".nii"):
        codes = [reader.GetMetaData(k) for k in ("qform_code", "sform_code") if k in keys]
        return any(code.strip() not in ("", "0") for code in codes)
    if suffix in (".nrrd", ".nhdr"):
        return "NRRD_space" in keys
    return True
