"""The local training set of a site: a folder of cases that survives crashes."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from psygnal import Signal

from napari_fedsam.cases.case import (
    BrokenCase,
    Case,
    CaseRecord,
    DeletionReport,
    NewCase,
    Split,
)
from napari_fedsam.cases.catalogue import Catalogue
from napari_fedsam.cases.deletion import delete_folders, finish_deletions, forget_sessions, report
from napari_fedsam.cases.errors import (
    BrokenCaseError,
    CaseStoreError,
    InvalidCaseError,
    NewerCaseError,
    no_such_case,
    told_as_one_sentence,
)
from napari_fedsam.cases.export import export_cases
from napari_fedsam.cases.ids import CASE_ID, new_case_id
from napari_fedsam.cases.index import Origin
from napari_fedsam.cases.integrity import read_case, write_case
from napari_fedsam.cases.layout import (
    NEW,
    SECRET,
    SPLITS,
    THUMBNAIL,
    case_names,
    is_case_store,
    remove_unfinished,
)
from napari_fedsam.cases.locking import FolderLock
from napari_fedsam.cases.pseudonyms import Pseudonyms, open_pseudonyms
from napari_fedsam.cases.set_aside import SetAsideCase, list_set_aside
from napari_fedsam.cases.split import choose_split, forget, known_split, read_remembered
from napari_fedsam.files import fsync_folder, make_private_folder

_log = logging.getLogger(__name__)


class CaseStore:
    """The cases kept in one folder.

    Several processes and threads may use the same folder: whatever changes it holds a file lock,
    which the system releases when a process dies. Reading needs no lock.

    Parameters
    ----------
    folder : Path
        A new or empty folder, or one that holds a store. It is made private to the user, what an
        interrupted process left behind is finished or removed, and the index is rebuilt.

    Attributes
    ----------
    changed : psygnal.Signal
        Emitted, in the calling thread, after cases were accepted, deleted or set aside through
        this object.

    Raises
    ------
    CaseStoreError
        When the folder cannot be used, or holds something else.
    """

    changed: ClassVar[Signal] = Signal()

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)
        with told_as_one_sentence("The cases folder could not be opened", self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            if not is_case_store(self._folder):
                raise CaseStoreError(
                    f"{self._folder} holds other files; choose an empty folder for the cases."
                )
            make_private_folder(self._folder)
            self._lock = FolderLock(self._folder)
            self._catalogue = Catalogue(self._folder, self._lock)
            with self._lock.held():
                remove_unfinished(self._folder)
                finish_deletions(self._folder)
                self._pseudonyms: Pseudonyms | CaseStoreError = self._open_pseudonyms()
                self._catalogue.refresh()
                self._catalogue.write_index()

    @property
    def folder(self) -> Path:
        """The store's folder."""
        return self._folder

    def accept(self, new: NewCase) -> CaseRecord:
        """Keep a case; it is safely on the disk when this returns.

        Parameters
        ----------
        new : NewCase
            The case. Its split is fixed here, see `napari_fedsam.cases.split.choose_split`: a scan
            or patient that has cases keeps its split.

        Returns
        -------
        CaseRecord
            The record as written.

        Raises
        ------
        InvalidCaseError
            When the case asks for another split than its scan or patient already has.
        CaseStoreError
            When it could not be written; nothing is left behind then.
        """
        with (
            told_as_one_sentence("The case was not kept", self._folder),
            self._lock.held(),
        ):
            self._catalogue.refresh()
            record = self._write(new)
            self._catalogue.add(record)
            self._catalogue.write_index()
        self.changed.emit()
        return record

    def records(self, structure: str | None = None, split: str | None = None) -> list[CaseRecord]:
        """Return the records of the cases, the oldest first.

        Cases that other processes added or removed are noticed. Records that turn out to be broken
        are set aside.

        Parameters
        ----------
        structure : str or None
            Only cases of the structure with this name, in upper or lower case.
        split : {"train", "val"} or None
            Only cases of this split.
        """
        with told_as_one_sentence("The cases could not be read", self._folder):
            self._catalogue.refresh()
        wanted = None if structure is None else structure.casefold()
        return [
            record
            for record in self._catalogue.records()
            if wanted in (None, record.structure.name.casefold()) and split in (None, record.split)
        ]

    def load(self, case_id: str) -> Case:
        """Read a case after checking everything about it.

        Raises
        ------
        BrokenCaseError
            When it is damaged; it has been set aside then.
        MissingCaseError
            When there is no such case (any more).
        CaseStoreError
            When the disk or rights prevent reading.
        """
        folder = self.case_folder(case_id)
        with told_as_one_sentence(f"Case {case_id} could not be read", self._folder):
            try:
                return read_case(folder)
            except BrokenCaseError as error:
                told = self._catalogue.put_aside(error)
                self.changed.emit()
                raise told from error

    def case_folder(self, case_id: str) -> Path:
        """Return the folder of a case.

        Raises
        ------
        MissingCaseError
            When there is no such case.
        """
        if not CASE_ID.fullmatch(case_id) or not (self._folder / case_id).is_dir():
            raise no_such_case(case_id, self._folder)
        return self._folder / case_id

    def thumbnail_path(self, case_id: str) -> Path:
        """Return the path of a case's PNG thumbnail, at most 96 pixels wide and high."""
        return self.case_folder(case_id) / THUMBNAIL

    def delete(self, case_id: str, *, image_stays: bool = False) -> DeletionReport:
        """Remove a case for good, also one that was set aside.

        The split of its scan is remembered, for the scan may be annotated anew.

        Parameters
        ----------
        case_id : str
        image_stays : bool
            Whether its image is still being annotated, so that what the encoder made of it may
            stay, too.

        Raises
        ------
        CaseStoreError
            When there is no such case, or its files cannot be removed.
        """
        with self._deleting():
            found = [(aside.id, aside.folder) for aside in self.set_aside() if aside.id == case_id]
            if CASE_ID.fullmatch(case_id) and (self._folder / case_id).is_dir():
                found.append((case_id, self._folder / case_id))
            if not found:
                raise no_such_case(case_id, self._folder)
            delete_folders(self._folder, found, forget_patient=False, images_stay=image_stays)
        return report([case_id], self._folder)

    def delete_patient(self, pseudonym: str) -> DeletionReport:
        """Remove all cases of a patient, or of a scan, for good.

        Cases of the patient's scans that were accepted without the patient's name go too, and so
        do broken ones that were set aside. Nothing about the patient is remembered but the ids of
        the deleted cases.

        Parameters
        ----------
        pseudonym : str
            A record's `patient` or `scan`, or `store.pseudonym(patient_id)`.

        Raises
        ------
        CaseStoreError
            When no case belongs to this pseudonym, or files cannot be removed.
        """
        with self._deleting():
            names = self._patient_and_scans(pseudonym)
            found, unattributed = self._folders_of(names)
            delete_folders(self._folder, found, forget_patient=True)
            # Those of scans whose cases had all been deleted before, too.
            forget_sessions(self._folder, names)
            forgotten = forget(self._folder / SPLITS, names)
            if not found and not forgotten:
                raise CaseStoreError(
                    f"No case of this patient is kept in {self._folder}; see the list of cases for "
                    "the pseudonyms."
                )
        return report(dict.fromkeys(case_id for case_id, _ in found), self._folder, unattributed)

    def verify(self) -> list[BrokenCase]:
        """Check every case completely; broken ones are set aside.

        Returns
        -------
        list of BrokenCase
            What was found broken or unreadable now (see `set_aside` for earlier ones). A case that
            the disk or rights do not let read is listed but stays where it is.
        """
        broken = []
        with told_as_one_sentence("The cases could not be verified", self._folder):
            for case_id in sorted(case_names(self._folder)):
                try:
                    self.load(case_id)
                except BrokenCaseError as error:
                    broken.append(BrokenCase(case_id, error.reason))
                except NewerCaseError as error:
                    _log.warning("%s", error)
                except CaseStoreError as error:
                    # One that was deleted meanwhile is no finding.
                    if (self._folder / case_id).is_dir():
                        broken.append(BrokenCase(case_id, str(error)))
        return broken

    def set_aside(self) -> list[SetAsideCase]:
        """Return the broken cases that were set aside, with their folders and reasons."""
        with told_as_one_sentence("The folder set-aside could not be read", self._folder):
            return list(list_set_aside(self._folder))

    def export(self, destination: Path, *, site: str = "local") -> int:
        """Copy all verified cases out, see `napari_fedsam.cases.export` for the layout.

        Parameters
        ----------
        destination : Path
            A folder that does not exist or is empty, outside the store.
        site : str
            The name for the manifest's column `site`.

        Returns
        -------
        int
            How many cases were copied; broken ones are set aside and left out.

        Raises
        ------
        CaseStoreError
            When the destination is in use or cannot be written.
        """
        return export_cases(self._verified(), self._folder, Path(destination), site=site)

    def footprint(self) -> int:
        """Return how many bytes all files of the store take."""
        with told_as_one_sentence("The cases folder could not be measured", self._folder):
            return sum(path.stat().st_size for path in self._folder.rglob("*") if path.is_file())

    def pseudonym(self, text: str) -> str:
        """Return the pseudonym of a scan's or patient's key at this site, 16 hexadecimal digits.

        Raises
        ------
        CaseStoreError
            When the site's secret is lost.
        """
        if isinstance(self._pseudonyms, CaseStoreError):
            raise self._pseudonyms
        return self._pseudonyms.of(text)

    def _open_pseudonyms(self) -> Pseudonyms | CaseStoreError:
        """Open the secret; without it cases can be read and deleted, though not accepted."""
        try:
            return open_pseudonyms(self._folder / SECRET)
        except CaseStoreError as error:
            _log.warning("%s", error)
            return error

    def _write(self, new: NewCase) -> CaseRecord:
        scan = self.pseudonym(new.scan_key)
        patient = scan if new.patient_key is None else self.pseudonym(new.patient_key)
        split = self._split_for(scan, patient, new.split)
        case_id = new_case_id()
        temporary = self._folder / f"{NEW}{case_id}"
        try:
            temporary.mkdir(mode=0o700)
            record = write_case(
                temporary,
                new,
                case_id=case_id,
                created=datetime.now(UTC).isoformat(timespec="microseconds"),
                split=split,
                scan=scan,
                patient=patient,
            )
            temporary.rename(self._folder / case_id)
            fsync_folder(self._folder)
        except BaseException:
            with suppress(OSError):
                (self._folder / case_id).rename(temporary)
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return record

    def _split_for(self, scan: str, patient: str, wanted: Split | None) -> Split:
        records = self._catalogue.records()
        remembered = read_remembered(self._folder / SPLITS)
        known = known_split(scan, patient, [*records, *remembered])
        if known and wanted and known != wanted:
            raise InvalidCaseError(
                f'Earlier cases of this scan or patient are in the split "{known}", so this one '
                f'cannot go to "{wanted}"; leave the split open.'
            )
        others = {record.patient: record.split for record in records}
        return known or wanted or choose_split(patient, others)

    def _verified(self) -> Iterator[Case]:
        for record in self.records():
            try:
                yield self.load(record.id)
            except BrokenCaseError as error:
                _log.warning("%s", error)

    def _patient_and_scans(self, pseudonym: str) -> set[str]:
        known: list[CaseRecord | Origin] = [
            *self._catalogue.records(),
            *read_remembered(self._folder / SPLITS),
        ]
        return {pseudonym} | {case.scan for case in known if case.patient == pseudonym}

    def _folders_of(self, names: set[str]) -> tuple[list[tuple[str, Path]], int]:
        """Return the folders of these patients' cases, and how many set aside are of nobody."""
        found = [
            (record.id, self._folder / record.id)
            for record in self._catalogue.records()
            if names & {record.patient, record.scan}
        ]
        aside = self.set_aside()
        found += [(case.id, case.folder) for case in aside if names & set(case.pseudonyms)]
        return found, sum(not case.pseudonyms for case in aside)

    @contextmanager
    def _deleting(self) -> Iterator[None]:
        try:
            with (
                told_as_one_sentence("The deletion is not complete", self._folder),
                self._lock.held(),
            ):
                self._catalogue.refresh()
                yield
                self._catalogue.refresh()
                self._catalogue.write_index()
        finally:
            self.changed.emit()
