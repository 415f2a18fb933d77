"""Which cases train a model and which judge it."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ValidationError

from napari_fedsam.cases.case import CaseRecord, Split
from napari_fedsam.cases.index import Origin
from napari_fedsam.files import write_text_atomically

_log = logging.getLogger(__name__)

VALIDATION_SHARE = 0.2


class _Remembered(BaseModel):
    origins: list[Origin]


def choose_split(patient: str, others: Mapping[str, Split]) -> Split:
    """Choose the split of a patient of whom no case is kept yet.

    The rule (a patient whose name is unknown is one scan):

    1. The first patient trains, the second one validates, so that a new model can be judged as
       soon as possible: whenever others exist but none of them validates, this one does.
    2. After that the pseudonym decides: it is a keyed hash, and the lowest fifth of its values
       validates. The choice does not depend on the image, the day or the annotator.
    3. Where that would leave the number of validating patients more than one away from a fifth of
       all patients, the opposite is chosen.

    Parameters
    ----------
    patient : str
        The pseudonym, 16 hexadecimal digits.
    others : mapping of str to {"train", "val"}
        Splits of the patients that have cases now.

    Returns
    -------
    {"train", "val"}
        The split of all of this patient's cases from now on.
    """
    validating = sum(split == "val" for split in others.values())
    if validating == 0:
        return "val" if others else "train"
    fair = VALIDATION_SHARE * (len(others) + 1)
    if validating + 1 > fair + 1:
        return "train"
    if validating < fair - 1:
        return "val"
    return "val" if int(patient, 16) < VALIDATION_SHARE * 16 ** len(patient) else "train"


def known_split(scan: str, patient: str, earlier: Sequence[CaseRecord | Origin]) -> Split | None:
    """Return the split that a scan, else its patient, already has, or None.

    Parameters
    ----------
    scan, patient : str
        Pseudonyms.
    earlier : sequence of CaseRecord or Origin
        All cases, then what is remembered of deleted ones; the first that fits decides.
    """
    same_scan = (case.split for case in earlier if case.scan == scan)
    same_patient = (case.split for case in earlier if case.patient == patient)
    return next(same_scan, None) or next(same_patient, None)


def read_remembered(path: Path) -> list[Origin]:
    """Return whose cases were deleted one by one or set aside, and which split they were in.

    A scan that is annotated anew after a deletion must not change sides: a model may have been
    trained on it. A damaged file counts as empty.
    """
    try:
        return _Remembered.model_validate_json(path.read_bytes()).origins
    except FileNotFoundError:
        return []
    except ValidationError:
        _log.warning("%s is damaged; splits of deleted cases are not remembered", path.name)
        return []


def remember(path: Path, origin: Origin) -> None:
    """Keep the split of a case that is gone."""
    known = read_remembered(path)
    if origin not in known:
        _write(path, [*known, origin])


def forget(path: Path, pseudonyms: Collection[str]) -> bool:
    """Remove all that is remembered of these scans and patients; False when there was nothing."""
    known = read_remembered(path)
    left = [one for one in known if not {one.scan, one.patient} & set(pseudonyms)]
    if left != known:
        _write(path, left)
    return left != known


def _write(path: Path, origins: list[Origin]) -> None:
    write_text_atomically(path, _Remembered(origins=origins).model_dump_json(indent=1) + "\n")
