"""The part of the widget that saves and opens sessions, and offers the one left behind."""

from datetime import datetime

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QWidget

from napari_fedsam.annotation.autosave import LeftBehind
from napari_fedsam.widgets.section_parts import button, column, row, words


class SessionSection(QWidget):
    """Save and open; `offer` is a bar of its own, shown while there is something to restore.

    Signals: `save_wanted`, `open_wanted`, `restore_wanted`, `discard_wanted`.
    """

    save_wanted = Signal()
    open_wanted = Signal()
    restore_wanted = Signal()
    discard_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.save = button(
            "Save session…",
            self.save_wanted.emit,
            "Save prompts, masks and structures as one file; the scan stays where it is",
        )
        self.open = button("Open session…", self.open_wanted.emit, "Go on with a saved session")
        column(self).addWidget(row(self.save, self.open))
        self.offer = QFrame()
        self.offer.setFrameShape(QFrame.Shape.StyledPanel)
        self.text = words()
        self.restore = button(
            "Restore", self.restore_wanted.emit, "Open its scan and bring prompts and masks back"
        )
        self.discard = button(
            "Discard", self.discard_wanted.emit, "Remove it; kept cases are not touched"
        )
        layout = column(self.offer)
        layout.setContentsMargins(6, 4, 6, 4)
        layout.addWidget(self.text)
        layout.addWidget(row(self.restore, self.discard))
        self.offer.hide()

    def show_offer(self, left: LeftBehind | None) -> None:
        """Offer a session, or nothing."""
        self.offer.setVisible(left is not None)
        if left is not None:
            when = datetime.fromtimestamp(left.written).strftime("%d %b, %H:%M")
            state = left.saved.state
            accepted = sum(place.case is not None for place in state.places)
            prompted = len(state.places) - accepted
            self.text.setText(
                f"Unfinished session of {state.scan}, {when}: {accepted} accepted, "
                f"{prompted} prompted."
            )
