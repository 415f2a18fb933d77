"""The file `index.json`: an overview for people and other programs, rebuilt from the folders.

It is never believed about a case that can be read. It only helps to tell whose a damaged case was.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from napari_fedsam.cases.case import CaseRecord, Split
from napari_fedsam.cases.layout import INDEX, RECORD
from napari_fedsam.files import write_text_atomically

_Hex16 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]


class Origin(BaseModel):
    """Whose a case is: pseudonyms of its scan and patient, and the split they are in."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    scan: _Hex16
    patient: _Hex16
    split: Split


def write_index(store: Path, records: Iterable[CaseRecord]) -> None:
    """Replace `index.json` in one step.

    Raises
    ------
    OSError
        When it cannot be written; the old one is then still there.
    """
    entries = [
        record.model_dump(include={"id", "created", "absent", "split", "scan", "patient"})
        | {"structure": record.structure.value, "structure_name": record.structure.name}
        for record in records
    ]
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    write_text_atomically(store / INDEX, f'{{"cases": [\n{lines}\n]}}\n')


def origin_of(folder: Path, store: Path) -> Origin | None:
    """Tell whose a possibly damaged case is, from the index, else from what its record says."""
    try:
        cases = json.loads((store / INDEX).read_bytes())["cases"]
        for entry in cases:
            if entry["id"] == folder.name:
                return Origin.model_validate(entry)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return recorded_origin(folder)


def recorded_origin(folder: Path) -> Origin | None:
    """Tell whose a case is from its record, whatever else is wrong with that."""
    try:
        return Origin.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None
