"""Is the file complete? Checks that ITK leaves out.

ITK reads a NIfTI file that was cut off (a broken copy or download) without complaint, and fills
the rest with whatever was in memory; on a cut-off MetaImage it prints to the terminal.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from napari_fedsam.imaging.errors import ImagingError
from napari_fedsam.imaging.files import explained_access, suffix_of

_CHUNK = 1 << 20
_HEADER_LIMIT = 1 << 16
_NIFTI_1, _NIFTI_2 = 348, 540
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


def require_complete(path: Path) -> None:
    """Check that a NIfTI or MetaImage file holds all the voxels that its header promises.

    Compressed NIfTI is decompressed once, with its checksum. Other formats are not looked at:
    their readers notice. A header that makes no sense is left to the reader, too.

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
            complete = _is_complete_gzipped_nifti(path)
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
    for order in "<>":
        if len(header) < 348:
            return None
        kind = struct.unpack_from(f"{order}i", header)[0]
        if kind == _NIFTI_2:
            raise ImagingError(
                f"{path.name} is NIfTI-2, which cannot be read: convert it to NIfTI-1 or NRRD."
            )
        if kind == _NIFTI_1:
            dims = struct.unpack_from(f"{order}8h", header, 40)
            bits = struct.unpack_from(f"{order}h", header, 72)[0]
            start = struct.unpack_from(f"{order}f", header, 108)[0]
            voxels = math.prod(max(1, n) for n in dims[1 : 1 + max(0, min(7, dims[0]))])
            return int(start + voxels * bits // 8) if math.isfinite(start) else None
    return None


def _is_complete_gzipped_nifti(path: Path) -> bool:
    # gzip's own length field counts modulo 4 GiB and one member only: read it all.
    try:
        with gzip.open(path, "rb") as handle:
            first = handle.read(_HEADER_LIMIT)
            length = len(first)
            while chunk := handle.read(_CHUNK):
                length += len(chunk)
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
