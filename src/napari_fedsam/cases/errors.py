"""What can go wrong with the local training set, told as one sentence each."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from napari_fedsam.cases.ids import CASE_ID
from napari_fedsam.errors import FedSamError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}


class CaseStoreError(FedSamError):
    """The cases folder, or something done with it, failed."""


class InvalidCaseError(CaseStoreError):
    """A case that is about to be accepted is not well formed; nothing was written."""


class NewerCaseError(CaseStoreError):
    """A case on disk was written by a newer version of this program."""


class MissingCaseError(CaseStoreError):
    """There is no such case, or none any more."""


class BrokenCaseError(CaseStoreError):
    """A case on disk is damaged and must not be used.

    Attributes
    ----------
    case_id : str
        The case.
    reason : str
        What is wrong with it, without the case's name.
    """

    def __init__(self, case_id: str, reason: str, set_aside: Path | None = None) -> None:
        self.case_id = case_id
        self.reason = reason
        kept = f" It was set aside in {set_aside}; annotate it again." if set_aside else ""
        super().__init__(f"Case {case_id} is broken: {reason}.{kept}")


def no_such_case(case_id: str, folder: Path) -> MissingCaseError:
    """Build the error for an id that no case has."""
    # Text that is no id at all is not repeated: it might be a name.
    shown = case_id if CASE_ID.fullmatch(case_id) else "of this name"
    return MissingCaseError(
        f"There is no case {shown} in {folder}; see the list of cases for their ids."
    )


@contextlib.contextmanager
def told_as_one_sentence(what: str, folder: Path) -> Iterator[None]:
    """Turn operating-system errors of the block into a `CaseStoreError`.

    Parameters
    ----------
    what : str
        The start of the sentence, for instance "The case was not kept".
    folder : Path
        The folder that the sentence names.
    """
    try:
        yield
    except OSError as error:
        raise CaseStoreError(f"{what}: {_cause(error, folder)}") from error


def _cause(error: OSError, folder: Path) -> str:
    if error.errno in _DISK_FULL:
        return f"the disk of {folder} is full; free some space and try again."
    if error.errno in _NOT_ALLOWED:
        return f"no permission to use {folder}; change its rights or choose another folder."
    return f"{folder} could not be used ({error.strerror or type(error).__name__}); check the disk."
