"""Binds sessions on disk to the window: autosave, the offer to restore, save and open."""

from collections.abc import Callable
from pathlib import Path

from napari.utils.notifications import show_info
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFileDialog

from napari_fedsam.annotation.acceptance import Acceptance
from napari_fedsam.annotation.autosave import (
    Autosave,
    LeftBehind,
    newest_left_behind,
    save_session,
)
from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.session_file import SUFFIX, SavedSession, read_session
from napari_fedsam.annotation.session_state import acceptances_of, restore
from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.widgets.background import Background
from napari_fedsam.widgets.session_section import SessionSection

AUTOSAVE_MS = 3000
_FILTER = f"Sessions (*{SUFFIX})"


class SessionPanel:
    """Saves the session every few seconds, and brings one back.

    Parameters
    ----------
    session : AnnotationSession
    section : SessionSection
    folder : Path
        Where autosaved sessions are kept.
    background : Background
    tell : callable
        Shows an error.
    open_scan : callable
        Opens a scan's file in a worker.
    take_off : callable
        Closes the open scan and takes its layers off the viewer.
    """

    def __init__(
        self,
        session: AnnotationSession,
        section: SessionSection,
        folder: Path,
        background: Background,
        tell: Callable[[FedSamError], None],
        *,
        open_scan: Callable[[Path], object],
        take_off: Callable[[], None],
    ) -> None:
        self._session = session
        self._section = section
        self._background = background
        self._tell = tell
        self._open_scan = open_scan
        self._take_off = take_off
        self._autosave = Autosave(session, folder)
        self._left: LeftBehind | None = None
        self._awaited: SavedSession | None = None
        section.restore_wanted.connect(self._restore)
        section.discard_wanted.connect(self._discard)
        self._timer = QTimer(section)
        self._timer.timeout.connect(self.save_now)
        self._timer.start(AUTOSAVE_MS)
        self._look_for_left_behind()

    def save_now(self) -> None:
        """Write what changed since the last time, in a worker."""
        if self._background.busy("autosave"):
            return
        job = self._autosave.job()
        if job is not None:
            self._background.run("autosave", job, lambda _: None, self._tell)

    def save(self, path: Path | str | None) -> None:
        """Save the session as a file of its own; without a path, ask for it."""
        if path is None:
            path, _ = QFileDialog.getSaveFileName(self._section, "Save session", filter=_FILTER)
        if not path:
            return
        chosen = Path(path)
        if chosen.suffix != SUFFIX:
            chosen = chosen.with_name(chosen.name + SUFFIX)
        try:
            job = save_session(self._session, chosen)
        except AnnotationError as error:
            self._tell(error)
            return
        self._background.run(
            "disk", job, lambda _: show_info(f"The session was saved as {chosen.name}."), self._tell
        )

    def open(self, path: Path | str | None) -> None:
        """Open a saved session and its scan; without a path, ask for it."""
        if path is None:
            path, _ = QFileDialog.getOpenFileName(self._section, "Open session", filter=_FILTER)
        if path:
            chosen = Path(path)
            self._background.run("disk", lambda: read_session(chosen), self._go_on, self._tell)

    def expect(self, saved: SavedSession) -> None:
        """Bring a saved session back once its scan has been opened."""
        self._awaited = saved

    def scan_opened(self, scan: Scan) -> None:
        """Bring the awaited session back if this is its scan."""
        saved = self._awaited
        if saved is None or scan.source.resolve() != Path(saved.state.source):
            return
        self._awaited = None

        def bring_back(accepted: list[Acceptance]) -> None:
            if self._session.scan is scan:
                restore(self._session, saved, accepted)
                show_info(f"The session of {saved.state.scan} is back.")

        store = self._session.store
        self._background.run(
            "disk", lambda: acceptances_of(saved, scan, store), bring_back, self._tell
        )

    def put_away(self, then: Callable[[], None]) -> None:
        """Save and close the open scan if something was done on it.

        `then` is not called when the session cannot be saved; the scan stays open.
        """
        job = self._autosave.job()
        if job is not None:
            # What is done meanwhile is found, and saved, when this comes back.
            self._background.run("autosave", job, lambda _: self.put_away(then), self._tell)
            return
        if self._session.has_work:
            self._take_off()
        then()

    def use_folder(self, folder: Path) -> None:
        """Keep sessions in another folder, and offer to restore what was left behind there."""
        self._awaited = None
        self._autosave.close()
        self._autosave = Autosave(self._session, folder)
        self._look_for_left_behind()

    def close(self) -> None:
        """Write what is left, and stop."""
        self._timer.stop()
        job = self._autosave.job()
        if job is not None:
            try:
                job()
            except AnnotationError as error:
                self._tell(error)
        self._autosave.close()

    def _look_for_left_behind(self) -> None:
        folder = self._autosave.folder
        self._background.run("disk", lambda: newest_left_behind(folder), self._offer, self._tell)

    def _offer(self, left: LeftBehind | None) -> None:
        self._left = left
        self._section.show_offer(left)

    def _restore(self) -> None:
        if self._left is not None:
            self._go_on(self._left.saved)
        self._section.show_offer(None)

    def _discard(self) -> None:
        left, self._left = self._left, None
        self._section.show_offer(None)
        if left is not None:
            self._background.run("disk", left.discard, lambda _: None, self._tell)

    def _go_on(self, saved: SavedSession) -> None:
        source = Path(saved.state.source)
        if not source.exists():
            self._tell(
                AnnotationError(
                    f"The scan of this session, {saved.state.scan}, is not where it was: put its "
                    "file back and open the session again."
                )
            )
            return
        self.expect(saved)
        scan = self._session.scan
        if scan is not None and scan.source.resolve() == source:
            self.scan_opened(scan)
        else:
            self._open_scan(source)
