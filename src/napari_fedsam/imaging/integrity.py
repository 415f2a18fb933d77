"""Is the file complete? Checks that ITK leaves out.

ITK reads a NIfTI file that was cut off (a broken copy or download) without complaint, and fills
the rest with whatever was in memory; on a cut-off MetaImage it prints to the terminal.
"""

import gzip
import math
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.files import explained_access, suffix_of
from napari_fedsam.imaging.nifti_header import NiftiHeader

Take = Callable[[bytes], None]

_CHUNK = 1 << 20
_HEADER_LIMIT = 1 << 16
_NIFTI_2 = 540
_METAIMAGE_BYTES = {
    "MET_CHAR": 1,
    "MET_UCHAR": 1,
    "MET_SHORT": 2,
    "MET_USHORT": 2,
    "MET_INT": 4,
    "MET_UINT": 4,
    "MET_LONG": 4,
    "MET_ULONG": 4,
    "MET_LONG_LONG": 8,
    "MET_ULONG_LONG": 8,
    "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}


def require_complete(path: Path, take: Take = lambda _: None) -> None:
    """Check that a NIfTI or MetaImage file holds all the voxels that its header promises.

    Compressed NIfTI is decompressed once, with its checksum. Other formats are not looked at:
    their readers notice. A header that makes no sense is left to the reader, too.

    Parameters
    ----------
    path : Path
    take : callable, optional
        Is given the decompressed bytes of a compressed NIfTI, piece by piece.

    Raises
    ------
    ImagingError
        If voxels are missing or damaged, the file cannot be opened, or it is NIfTI-2.
    """
    suffix = suffix_of(path)
    with explained_access(path):
        if suffix == ".nii":
            with path.open("rb") as handle:
                promised = _nifti_bytes(handle.read(_HEADER_LIMIT), path)
            complete = promised is None or path.stat().st_size >= promised
        elif suffix == ".nii.gz":
            complete = _is_complete_gzipped_nifti(path, take)
        elif suffix in (".mha", ".mhd"):
            complete = _is_complete_metaimage(path)
        else:
            complete = True
    if not complete:
        raise ImagingError(
            f"{path.name} is truncated or damaged (voxels are missing): copy or download it again."
        )


def _nifti_bytes(header: bytes, path: Path) -> int | None:
    """Return how long a single-file NIfTI-1 must be, None if it is not one."""
    if header[:4] in (struct.pack("<i", _NIFTI_2), struct.pack(">i", _NIFTI_2)):
        raise ImagingError(
            f"{path.name} is NIfTI-2, which cannot be read: convert it to NIfTI-1 or NRRD."
        )
    parsed = NiftiHeader.parse(header)
    return None if parsed is None else parsed.file_bytes


def _is_complete_gzipped_nifti(path: Path, take: Take) -> bool:
    # gzip's own length field counts modulo 4 GiB and one member only: read it all.
    length, first = 0, b""
    try:
        with gzip.open(path, "rb") as handle:
            while chunk := handle.read(_CHUNK):
                first = first or chunk
                length += len(chunk)
                take(chunk)
    except gzip.BadGzipFile as error:
        # A wrong checksum is damage; a wrong beginning is another format, the reader's matter.
        return "Not a gzipped file" in str(error)
    except (EOFError, zlib.error):
        return False
    promised = _nifti_bytes(first, path)
    return promised is None or length >= promised


def _is_complete_metaimage(path: Path) -> bool:
    with path.open("rb") as handle:
        fields = _metaimage_fields(handle)
        header_length = handle.tell()
    if fields is None:
        return True
    where = fields["ElementDataFile"]
    if where.upper() == "LOCAL":
        available = path.stat().st_size - header_length
    elif where.upper().startswith("LIST") or "%" in where:
        return True
    else:
        data = path.parent / where
        if not data.is_file():
            raise ImagingError(
                f"{path.name} needs the file {data.name} beside it, which is missing: copy both."
            )
        available = data.stat().st_size
    promised = _metaimage_bytes(fields)
    return promised is None or available >= promised


def _metaimage_fields(handle: BinaryIO) -> dict[str, str] | None:
    """Read the "Key = value" lines up to ElementDataFile, which ends the header."""
    fields: dict[str, str] = {}
    while handle.tell() < _HEADER_LIMIT:
        line = handle.readline(_HEADER_LIMIT).decode("latin-1")
        key, equals, value = line.partition("=")
        if not equals:
            return None
        fields[key.strip()] = value.strip()
        if key.strip() == "ElementDataFile":
            return fields
    return None


def _metaimage_bytes(fields: dict[str, str]) -> int | None:
    try:
        if fields.get("CompressedData", "False").lower() == "true":
            return int(fields["CompressedDataSize"])
        channels = int(fields.get("ElementNumberOfChannels", "1"))
        size = math.prod(int(n) for n in fields["DimSize"].split())
        return channels * size * _METAIMAGE_BYTES[fields["ElementType"].removesuffix("_ARRAY")]
    except (KeyError, ValueError):
        return None
