"""Writing a case so that damage can be seen, and seeing it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError

from napari_fedsam.cases.case import SCHEMA_VERSION, Case, CaseRecord, NewCase, Split
from napari_fedsam.cases.errors import BrokenCaseError, NewerCaseError
from napari_fedsam.cases.layout import (
    CONTENT_FILES,
    IMAGE,
    MASK,
    RECORD,
    RECORD_CHECKSUM,
    THUMBNAIL,
    fsync_content,
)
from napari_fedsam.cases.pixels import read_pixels, write_pixels
from napari_fedsam.cases.thumbnails import LONGEST_SIDE, render_thumbnail, write_thumbnail
from napari_fedsam.files import sha256_of


def write_case(
    folder: Path,
    new: NewCase,
    *,
    case_id: str,
    created: str,
    split: Split,
    scan: str,
    patient: str,
) -> CaseRecord:
    """Write all files of a case into an empty folder and force them to the disk.

    Raises
    ------
    OSError
        When that does not succeed entirely.
    """
    write_pixels(new.image, new.spacing, folder / IMAGE)
    write_pixels(new.mask.astype(np.uint8), new.spacing, folder / MASK)
    picture = render_thumbnail(
        new.image,
        new.mask,
        window=new.window,
        spacing=new.spacing,
        color=new.structure.color,
    )
    write_thumbnail(picture, folder / THUMBNAIL)
    record = CaseRecord(
        id=case_id,
        created=created,
        structure=new.structure,
        absent=not new.mask.any(),
        split=split,
        scan=scan,
        patient=patient,
        annotator=new.annotator,
        window=new.window,
        spacing=new.spacing,
        shape=new.image.shape,
        prompts=tuple(new.prompts),
        modality=new.modality,
        plane=new.plane,
        slice_index=new.slice_index,
        model=new.model,
        seconds=new.seconds,
        clicks=new.clicks,
        files={name: sha256_of(folder / name) for name in CONTENT_FILES},
    )
    write_record(folder, record)
    fsync_content(folder)
    return record


def write_record(folder: Path, record: CaseRecord) -> None:
    """Write `case.json` and its checksum, which `sha256sum --check` reads too."""
    content = (record.model_dump_json(indent=1) + "\n").encode()
    (folder / RECORD).write_bytes(content)
    checksum = f"{hashlib.sha256(content).hexdigest()}  {RECORD}\n"
    (folder / RECORD_CHECKSUM).write_bytes(checksum.encode())


def read_record(folder: Path) -> CaseRecord:
    """Read and check a case's record, without opening its pixels.

    Raises
    ------
    BrokenCaseError
        When it is missing, differs from its checksum, or is not a record of this case.
    NewerCaseError
        When a newer version of this program wrote it.
    OSError
        When the disk or the rights prevent reading.
    """
    case_id = folder.name
    content = _content_of(folder, RECORD)
    checksum = _content_of(folder, RECORD_CHECKSUM).decode("ascii", "replace").split()
    if checksum[:1] != [hashlib.sha256(content).hexdigest()]:
        raise BrokenCaseError(case_id, f"{RECORD} differs from its checksum")
    record = parse_record(content, case_id)
    if record.id != case_id:
        raise BrokenCaseError(case_id, "the folder is a renamed copy of another case")
    if set(record.files) != set(CONTENT_FILES):
        raise BrokenCaseError(case_id, f"{RECORD} does not list the checksums of all files")
    return record


def parse_record(content: bytes, case_id: str) -> CaseRecord:
    """Parse the content of `case.json`; raises as `read_record` does."""
    try:
        plain = json.loads(content)
        version = plain.get("schema_version") if isinstance(plain, dict) else None
        if isinstance(version, int) and version > SCHEMA_VERSION:
            raise NewerCaseError(
                f"Case {case_id} was written by a newer version of napari-fedsam; update this one."
            )
        return CaseRecord.model_validate_json(content)
    except ValidationError as error:
        wrong = ".".join(str(part) for part in error.errors()[0]["loc"]) or "its form"
        raise BrokenCaseError(case_id, f"{RECORD} is not a record of a case ({wrong})") from error
    except ValueError as error:
        raise BrokenCaseError(case_id, f"{RECORD} is not JSON text") from error


def read_case(folder: Path) -> Case:
    """Read a case and check everything about it; raises as `read_record` does."""
    record = read_record(folder)
    case_id = record.id
    for name, expected in record.files.items():
        if hashlib.sha256(_content_of(folder, name)).hexdigest() != expected:
            raise BrokenCaseError(case_id, f"{name} differs from its checksum")
    image = _pixels_of(folder, IMAGE, record)
    mask = _pixels_of(folder, MASK, record)
    if image.shape != record.shape:
        raise BrokenCaseError(case_id, f"{IMAGE} has another size than {RECORD} says")
    if mask.shape != record.height_and_width or mask.dtype != np.uint8 or mask.max() > 1:
        raise BrokenCaseError(case_id, f"{MASK} is not a mask of the image")
    if record.absent == bool(mask.any()):
        raise BrokenCaseError(case_id, f"{MASK} contradicts what {RECORD} says about absence")
    _check_thumbnail(folder, case_id)
    return Case(record, image, mask.astype(np.bool_))


def _content_of(folder: Path, name: str) -> bytes:
    path = folder / name
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise BrokenCaseError(folder.name, f"{name} is not a file")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BrokenCaseError(folder.name, f"{name} is missing") from error


def _pixels_of(folder: Path, name: str, record: CaseRecord) -> NDArray[Any]:
    try:
        pixels, spacing = read_pixels(folder / name)
    except RuntimeError as error:
        raise BrokenCaseError(record.id, f"{name} is not a readable image") from error
    if not np.allclose(spacing, record.spacing or (1.0, 1.0), rtol=1e-6, atol=0):
        raise BrokenCaseError(record.id, f"{name} has another spacing than {RECORD} says")
    return pixels


def _check_thumbnail(folder: Path, case_id: str) -> None:
    try:
        with Image.open(folder / THUMBNAIL, formats=["PNG"]) as picture:
            picture.load()
            size = picture.size
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise BrokenCaseError(case_id, f"{THUMBNAIL} is not a readable picture") from error
    if max(size) > LONGEST_SIDE:
        raise BrokenCaseError(case_id, f"{THUMBNAIL} is too large for a thumbnail")
