"""Binds a worklist to the window: opens its scans one at a time and keeps what was done."""

import threading
from collections.abc import Callable
from pathlib import Path

from napari.utils.notifications import show_info
from qtpy.QtCore import QTimer

from napari_fedsam.annotation.autosave import save_session
from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.session_file import SavedPlace, SavedSession, read_session
from napari_fedsam.annotation.session_state import state_of
from napari_fedsam.annotation.worklist import Flag, Order, WorkClock, Worklist, WorklistState
from napari_fedsam.annotation.worklist_file import WorklistFolder
from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.widgets.background import Background
from napari_fedsam.widgets.propose_ahead import ProposeAhead
from napari_fedsam.widgets.scan_opening import ScanOpening
from napari_fedsam.widgets.worklist_section import WorklistSection

SAVE_MS = 1000
_OFTEN = 5.0
"""Time is written down in pieces of this length, seconds."""

Then = Callable[[], None]


class WorklistPanel:
    """Opens the scans of a worklist; before one is left, its session is saved beside the list.

    Parameters
    ----------
    session : AnnotationSession
    section : WorklistSection
    folder : WorklistFolder
    proposals : ProposeAhead
    background : Background
    tell : callable
        Shows an error.
    open_scan : callable
        Opens a scan's file in a worker.
    expect : callable
        Brings a saved session back once its scan is open.
    take_off : callable
        Closes the open scan and takes its layers off the viewer.
    """

    def __init__(
        self,
        session: AnnotationSession,
        section: WorklistSection,
        folder: WorklistFolder,
        proposals: ProposeAhead,
        background: Background,
        *,
        tell: Callable[[FedSamError], None],
        open_scan: Callable[[Path], ScanOpening],
        expect: Callable[[SavedSession], None],
        take_off: Callable[[], None],
    ) -> None:
        self._session = session
        self._section = section
        self._folder = folder
        self._proposals = proposals
        self._background = background
        self._tell = tell
        self._open_scan = open_scan
        self._expect = expect
        self._take_off = take_off
        self.worklist: Worklist | None = None
        self._scan: Scan | None = None
        self._is_moving = False
        self._is_edited = False
        self._saved_places: tuple[SavedPlace, ...] = ()
        self._clock = WorkClock()
        self._spent = 0.0
        self._newest: dict[tuple[WorklistFolder, Path], WorklistState] = {}
        self._writing = threading.Lock()
        self._saving = QTimer(section)
        self._saving.setSingleShot(True)
        self._saving.setInterval(SAVE_MS)
        self._saving.timeout.connect(self._save)
        section.open_wanted.connect(self.open)
        section.entry_chosen.connect(self._entry_chosen)
        section.order_chosen.connect(self._order_chosen)
        session.opened.connect(self._scan_opened)
        session.edited.connect(self._edited)
        session.prompted.connect(self._prompted)
        for acted in (session.ask_changed, session.view.slice_changed, session.view.window_changed):
            acted.connect(self._acted)
        session.model_changed.connect(self._show_model)
        session.view.structure_changed.connect(self._show_model)
        background.run("disk", folder.newest, section.offer, tell)

    # --- what the person does

    def open(self, origin: Path) -> None:
        """Open a folder of scans, a manifest or a list, where one stopped."""
        self._background.run("disk", lambda: self._folder.open(origin), self._opened, self._tell)

    def go_on(self, flag: Flag | None = None) -> None:
        """Flag the scan on screen, if so wished, and open the next one.

        Raises
        ------
        AnnotationError
            When no worklist is open, or no scan of it is on screen to be flagged.
        """
        worklist = self._need_worklist()
        if flag is not None:
            if self._scan is None or worklist.current is None:
                raise AnnotationError("No scan of the worklist is open: go to the next one first.")
            self._write_down()
            worklist.flag(worklist.current, flag)
        self._go_on(worklist)

    def put_away(self, then: Then) -> None:
        """Save and close the worklist and its scan; `then` is not called when that fails."""
        if self._is_moving:
            self._tell(AnnotationError("A scan is being opened: wait until it shows."))
        else:
            self._leave(lambda: self._close_list(then))

    def use_folder(self, folder: Path) -> None:
        """Keep worklists in another folder, and offer the one that was open there last."""
        self._folder = WorklistFolder(folder)
        self._background.run("disk", self._folder.newest, self._section.offer, self._tell)

    def _close_list(self, then: Then) -> None:
        if self.worklist is not None:
            self.worklist.changed.disconnect(self._changed)
            self._save()
            self.worklist = None
            self._section.show_worklist(None)
            self._proposals.use(None)
        then()

    def _go_on(self, worklist: Worklist) -> None:
        index = worklist.next(self._session.view.structure.value)
        if index is None:
            show_info("No other scan of the worklist is left to do.")
        else:
            self._go(worklist, index, goes_on=True)

    def _entry_chosen(self, index: int) -> None:
        worklist = self.worklist
        if worklist is not None and not (index == worklist.current and self._scan is not None):
            try:
                self._need_worklist()
            except AnnotationError as error:
                self._tell(error)
            else:
                self._go(worklist, index, goes_on=False)

    def _order_chosen(self, order: Order) -> None:
        if self.worklist is not None:
            self.worklist.set_order(order)

    def _need_worklist(self) -> Worklist:
        if self.worklist is None:
            raise AnnotationError("No worklist is open: open a folder of scans or a list first.")
        if self._is_moving:
            raise AnnotationError("A scan is being opened: wait until it shows.")
        return self.worklist

    # --- from scan to scan

    def _opened(self, found: tuple[Worklist, AnnotationError | None]) -> None:
        worklist, problem = found
        if problem is not None:
            self._tell(problem)
        self._leave(lambda: self._begin(worklist))

    def _begin(self, worklist: Worklist) -> None:
        if self.worklist is not None:
            self.worklist.changed.disconnect(self._changed)
            self._save()
        self.worklist = worklist
        worklist.changed.connect(self._changed)
        self._section.show_worklist(worklist)
        self._save()
        self._scan_opened()
        if self._scan is None:
            if worklist.current is None:
                self._go_on(worklist)
            else:
                self._go(worklist, worklist.current, goes_on=True)
        self._proposals.use(worklist)

    def _go(self, worklist: Worklist, index: int, *, goes_on: bool) -> None:
        self._is_moving = True
        self._leave(lambda: self._read(worklist, index, goes_on=goes_on))

    def _leave(self, then: Then) -> None:
        """Save the session of the scan on screen, if it has changed, and close the scan."""
        if self._scan is None:
            then()
            return
        self._write_down()
        places = state_of(self._session).places
        if not self._is_edited and places == self._saved_places:
            self._take_off()
            then()
            return
        job = self._saving_job()
        self._is_edited, self._saved_places = False, places
        # What is changed meanwhile is found, and saved, when this comes back.
        self._background.run("disk", job, lambda _: self._leave(then), self._stay)

    def _saving_job(self) -> Callable[[], None]:
        worklist = self.worklist
        assert worklist is not None and worklist.current is not None  # noqa: S101, PT018
        path = worklist.entries[worklist.current].path
        return save_session(self._session, self._folder.session_path(worklist.origin, path))

    def _stay(self, error: FedSamError) -> None:
        self._is_moving, self._is_edited = False, True
        self._tell(error)

    def _read(self, worklist: Worklist, index: int, *, goes_on: bool) -> None:
        worklist.go_to(index)
        self._section.show_current()
        path = worklist.entries[index].path
        kept = self._folder.session_path(worklist.origin, path)

        def show(saved: SavedSession | None) -> None:
            if saved is not None:
                self._expect(saved)
            opening = self._open_scan(path)
            opening.failed.connect(lambda error: worklist.set_problem(index, str(error)))
            opening.ended.connect(lambda _: self._ended(worklist, index, goes_on=goes_on))

        def without(error: FedSamError) -> None:
            self._tell(error)
            show(None)

        self._background.run(
            "disk", lambda: read_session(kept) if kept.exists() else None, show, without
        )

    def _ended(self, worklist: Worklist, index: int, *, goes_on: bool) -> None:
        self._is_moving = False
        if goes_on and index in worklist.problems:
            self._go_on(worklist)

    def _scan_opened(self) -> None:
        """Take note of a scan of the list that is on screen, however it was opened."""
        scan, worklist = self._session.scan, self.worklist
        index = None if scan is None or worklist is None else worklist.find(scan.source.resolve())
        self._is_edited, self._saved_places, self._spent = False, (), 0.0
        if worklist is None or index is None:
            self._scan = None
            self._clock.stop()
            return
        self._scan = scan
        self._clock.start()
        if worklist.current != index:
            worklist.go_to(index)
            self._section.show_current()

    # --- what is counted and kept

    def _prompted(self, count: int) -> None:
        if self._scan is not None and self.worklist is not None and count:
            current = self.worklist.current
            assert current is not None  # noqa: S101
            self.worklist.add_work(current, prompts=count)

    def _edited(self) -> None:
        self._is_edited = True
        self._acted()

    def _acted(self) -> None:
        self._spent += self._clock.lap()
        if self._spent > _OFTEN:
            self._write_down()

    def _write_down(self) -> None:
        """Note the time that was spent on the scan on screen."""
        worklist, spent = self.worklist, self._spent + self._clock.lap()
        self._spent = 0.0
        if self._scan is not None and worklist is not None and worklist.current is not None:
            worklist.add_work(worklist.current, seconds=spent)

    def _changed(self) -> None:
        self._section.refresh()
        if not self._saving.isActive():
            self._saving.start()

    def _save(self) -> None:
        if self.worklist is not None:
            which = self._note_newest(self.worklist)
            self._background.run("worklist", lambda: self._write(which), lambda _: None, self._tell)

    def _note_newest(self, worklist: Worklist) -> tuple[WorklistFolder, Path]:
        which = self._folder, worklist.origin
        self._newest[which] = worklist.state
        return which

    def _write(self, which: tuple[WorklistFolder, Path]) -> None:
        # An older state must not be written over the one that is written on closing.
        with self._writing:
            which[0].save(self._newest[which])

    def _show_model(self) -> None:
        session = self._session
        is_personal = session.model is not None and session.model.is_personalised
        self._section.show_model(
            can_propose=session.can_propose, is_personalised=session.can_propose and is_personal
        )

    def close(self) -> None:
        """Write what is left, and stop."""
        self._saving.stop()
        self._proposals.close()
        if self.worklist is None:
            return
        try:
            if self._scan is not None:
                self._write_down()
                if self._is_edited or state_of(self._session).places != self._saved_places:
                    self._saving_job()()
            self._write(self._note_newest(self.worklist))
        except FedSamError as error:
            self._tell(error)
