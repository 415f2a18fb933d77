"""Binds the cases section to the store; all disk access is in a worker."""

from collections.abc import Callable

from napari.utils.notifications import show_info

from napari_fedsam.annotation.acceptance import Acceptance
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.cases.case import CaseRecord, DeletionReport
from napari_fedsam.errors import FedSamError
from napari_fedsam.widgets.background import Background
from napari_fedsam.widgets.cases_section import CasesSection


class CasePanel:
    """Lists the kept cases, and deletes one on request.

    Parameters
    ----------
    session : AnnotationSession
    section : CasesSection
    background : Background
    tell : callable
        Shows an error.
    """

    def __init__(
        self,
        session: AnnotationSession,
        section: CasesSection,
        background: Background,
        tell: Callable[[FedSamError], None],
    ) -> None:
        self._session = session
        self._section = section
        self._background = background
        self._tell = tell
        session.accepted.connect(self._accepted)
        session.withdrawn.connect(self.refresh)
        section.delete_wanted.connect(self._delete)
        section.annotator_changed.connect(self._set_annotator)
        self.refresh()

    def refresh(self) -> None:
        """List the cases anew."""
        self._background.run("disk", self._session.store.records, self._show, self._tell)

    def _show(self, records: list[CaseRecord]) -> None:
        self._section.show_records(records)

    def _accepted(self, acceptance: Acceptance) -> None:
        if acceptance.false_positive_pixels:
            show_info(
                "Kept as absent; the model had wrongly proposed "
                f"{acceptance.false_positive_pixels} pixels here."
            )
        self.refresh()

    def _delete(self, case_id: str) -> None:
        store = self._session.store
        self._background.run("disk", lambda: store.delete(case_id), self._deleted, self._tell)

    def _deleted(self, report: DeletionReport) -> None:
        show_info(report.remains)
        self.refresh()

    def _set_annotator(self, name: str) -> None:
        self._session.annotator = name
