"""Copying cases out in a layout that other programs can read.

<destination>/manifest.csv          one line a case, see `COLUMNS`
<destination>/images/<id>.nrrd      raw values with spacing
<destination>/masks/<id>.nrrd       0 and 1
<destination>/records/<id>.json     the whole record: prompts, window, annotator, definition
<destination>/README.txt            this layout in words
"""

import csv
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from napari_fedsam.cases.case import Case, CaseRecord
from napari_fedsam.cases.errors import BrokenCaseError, CaseStoreError, told_as_one_sentence
from napari_fedsam.cases.layout import IMAGE, MASK, fsync_content, fsync_file
from napari_fedsam.files import fsync_folder, make_private_folder, sha256_of

MANIFEST = "manifest.csv"
COLUMNS = (
    "task",
    "site",
    "split",
    "image",
    "mask",
    "group",
    "width",
    "height",
    "structure",
    "structure_value",
    "absent",
    "modality",
    "plane",
    "slice_index",
    "spacing_row",
    "spacing_column",
    "window_low",
    "window_high",
    "created",
    "model",
    "sha256_image",
    "sha256_mask",
)
_README = """\
Cases exported by napari-fedsam. For research use only.

manifest.csv  one line per case; paths are relative to it; group is the patient's pseudonym: never
              split a group; spacing in mm, empty when unknown; window: shown black and white
images/       raw pixel values, NRRD
masks/        0 = background, 1 = structure, NRRD, same size as the image
records/      prompts, annotator and the structure's definition of each case, JSON

The images are patients' data: treat this folder as you treat the scans.
"""


def export_cases(cases: Iterable[Case], store: Path, destination: Path, *, site: str) -> int:
    """Copy verified cases into a new or empty folder, all or nothing.

    Parameters
    ----------
    cases : iterable of Case
        Verified cases of the store, read one by one.
    store : Path
        The store's folder.
    destination : Path
        A folder that does not exist or is empty, outside the store.
    site : str
        The name for the manifest's column `site`.

    Returns
    -------
    int
        How many cases were copied.

    Raises
    ------
    CaseStoreError
        When the destination is in use or cannot be written; nothing is left behind then.
    """
    destination = destination.resolve()
    _refuse_bad_destination(destination, store.resolve())
    with (
        told_as_one_sentence("The cases were not exported", destination.parent),
        _filled_in_one_step(destination) as folder,
    ):
        parts = [make_private_folder(folder / name) for name in ("images", "masks", "records")]
        rows = [_copy_case(case, store, folder, site) for case in cases]
        with (folder / MANIFEST).open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        (folder / "README.txt").write_text(_README, encoding="utf-8")
        for part in parts:
            fsync_content(part)
        fsync_file(folder / MANIFEST)
    return len(rows)


def _refuse_bad_destination(destination: Path, store: Path) -> None:
    if destination.is_relative_to(store):
        raise CaseStoreError(
            f"{destination} is inside the cases folder; export to a folder outside of it."
        )
    with told_as_one_sentence("The cases were not exported", destination):
        if destination.exists() and not destination.is_dir():
            raise CaseStoreError(f"{destination} is a file; export to a new or empty folder.")
        if destination.is_dir() and any(destination.iterdir()):
            raise CaseStoreError(f"{destination} is not empty; export to a new or empty folder.")


@contextmanager
def _filled_in_one_step(destination: Path) -> Iterator[Path]:
    """Yield a private folder that becomes `destination` when the block ends well."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    temporary = destination.with_name(f".{destination.name}-{secrets.token_hex(4)}")
    try:
        yield make_private_folder(temporary)
        if destination.is_dir():
            destination.rmdir()
        temporary.rename(destination)
        fsync_folder(destination.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _copy_case(case: Case, store: Path, folder: Path, site: str) -> dict[str, object]:
    record = case.record
    image, mask = f"images/{record.id}.nrrd", f"masks/{record.id}.nrrd"
    for name, target in ((IMAGE, image), (MASK, mask)):
        shutil.copyfile(store / record.id / name, folder / target)
        if sha256_of(folder / target) != record.files[name]:
            raise BrokenCaseError(record.id, f"{name} changed while it was copied")
    text = record.model_dump_json(indent=1) + "\n"
    (folder / "records" / f"{record.id}.json").write_text(text, encoding="utf-8")
    return _manifest_row(record, site) | {"image": image, "mask": mask}


def _manifest_row(record: CaseRecord, site: str) -> dict[str, object]:
    height, width = record.height_and_width
    row, column = record.spacing or ("", "")
    low, high = record.window
    return {
        "task": record.structure.name,
        "site": site,
        "split": record.split,
        "group": record.patient,
        "width": width,
        "height": height,
        "structure": record.structure.name,
        "structure_value": record.structure.value,
        "absent": int(record.absent),
        "modality": record.modality,
        "plane": record.plane,
        "slice_index": record.slice_index,
        "spacing_row": row,
        "spacing_column": column,
        "window_low": low,
        "window_high": high,
        "created": record.created,
        "model": record.model,
        "sha256_image": record.files[IMAGE],
        "sha256_mask": record.files[MASK],
    }
