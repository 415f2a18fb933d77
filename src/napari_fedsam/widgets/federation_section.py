"""The part of the widget that joins and leaves a federation."""

from collections.abc import Sequence
from pathlib import Path

from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtGui import QDragEnterEvent, QDropEvent, QGuiApplication
from qtpy.QtWidgets import QCheckBox, QComboBox, QFileDialog, QWidget
from superqt import QToggleSwitch

from napari_fedsam.federation.site_settings import SiteSettings
from napari_fedsam.federation.site_state import Phase, SiteState
from napari_fedsam.widgets.dice_plot import DicePlot
from napari_fedsam.widgets.section_parts import button, column, narrow, row, words

_DEFAULTS = SiteSettings()
_SETTINGS = (
    ("paused", "Pause", "Stay connected, but decline every round"),
    ("when_idle", "When idle", "Decline rounds while other programs use this computer"),
    (
        "ask_first",
        "Ask first",
        "Use a new model that did no worse only after you say so in the section Model",
    ),
)


class FederationSection(QWidget):
    """Coordinator, one toggle, the state in words, and what was exchanged.

    Signals: `join_wanted`, `leave_wanted`, `invitation_chosen` (path), `federation_chosen` (name),
    `key_wanted`, `test_wanted`, `audit_wanted`, `setting_wanted` (name in `SiteSettings`, whether).
    """

    join_wanted = Signal()
    leave_wanted = Signal()
    invitation_chosen = Signal(object)
    federation_chosen = Signal(str)
    key_wanted = Signal()
    test_wanted = Signal()
    audit_wanted = Signal()
    setting_wanted = Signal(str, bool)

    def __init__(self) -> None:
        super().__init__()
        self.setAcceptDrops(True)
        self.federations = narrow(QComboBox())
        self.federations.setToolTip(
            "The federation that this window works for; keys, models, sessions and settings of "
            "the others stay as they are"
        )
        self.federations.activated.connect(
            lambda _: self.federation_chosen.emit(self.federations.currentText())
        )
        self.address = words()
        self.choose_invitation = button(
            "Import invitation…",
            self._ask_invitation,
            "Import the invitation that the coordinator sent; or drop the file here",
        )
        self.copy_key = button(
            "Copy key",
            self.key_wanted.emit,
            "Copy this site's public key, which the coordinator has to approve",
        )
        self.test = button(
            "Test connection", self.test_wanted.emit, "Test what taking part needs, step by step"
        )
        self.audit = button(
            "What was sent…", self.audit_wanted.emit, "See every message that left this site"
        )
        self.settings = {name: self._setting(name, text, tip) for name, text, tip in _SETTINGS}
        self.toggle = QToggleSwitch("Take part")
        self.toggle.setToolTip(
            "Train on the kept cases in the background and exchange shared parameters; scans, "
            "masks and local parameters never leave this machine"
        )
        self.toggle.toggled.connect(self._toggled)
        self.state = words()
        self.state.setObjectName("napari-fedsam-federation-state")
        self.message = words()
        self.numbers = words()
        self.plot = DicePlot()
        layout = column(self)
        layout.addWidget(self.federations)
        layout.addWidget(self.address)
        layout.addWidget(row(self.choose_invitation, self.copy_key))
        layout.addWidget(row(self.test, self.audit))
        layout.addWidget(self.toggle)
        layout.addWidget(row(*self.settings.values()))
        for label in (self.state, self.message, self.numbers, self.plot):
            layout.addWidget(label)
        self.show_federations(())
        self.show_state(SiteState())

    def _setting(self, name: str, text: str, tip: str) -> QCheckBox:
        box = QCheckBox(text)
        box.setToolTip(tip)
        box.toggled.connect(lambda checked: self.setting_wanted.emit(name, checked))
        return box

    def show_federations(self, names: Sequence[str]) -> None:
        """Offer the federations of this machine, once there are several."""
        self.federations.setVisible(len(names) > 1)
        if list(names) != [self.federations.itemText(i) for i in range(self.federations.count())]:
            self.federations.clear()
            self.federations.addItems(list(names))

    def show_state(
        self, state: SiteState, *, changing: str = "", settings: SiteSettings = _DEFAULTS
    ) -> None:
        """Show where the site stands.

        Parameters
        ----------
        state : SiteState
        changing : str
            Words for a join or leave under way, during which the toggle cannot be used.
        settings : SiteSettings
            What the user has set.
        """
        has_invitation = bool(state.address)
        self.federations.setCurrentIndex(self.federations.findText(state.federation))
        self.federations.setEnabled(not changing)
        is_named_above = self.federations.count() > 1
        self.address.setText(
            f"{'Coordinator' if is_named_above else state.federation} at {state.address}"
            if has_invitation
            else "No federation yet: import the invitation that its coordinator sent you."
        )
        self.state.setText(f"State: {changing or state.words}")
        self.message.setText(state.message)
        # The words for an error hold its reason already.
        self.message.setVisible(bool(state.message) and state.phase is not Phase.ERROR)
        rounds = "round" if state.rounds_joined == 1 else "rounds"
        self.numbers.setText(
            f"{state.rounds_joined} {rounds} joined, {_bytes(state.bytes_sent)} sent"
        )
        self.numbers.setVisible(has_invitation)
        self.plot.show_history(state.dice_history)
        self.test.setEnabled(has_invitation)
        for name, box in self.settings.items():
            box.setVisible(has_invitation)
            with QSignalBlocker(box):
                box.setChecked(getattr(settings, name))
        taking_part = state.phase is not Phase.OFFLINE
        self.toggle.setEnabled((has_invitation or taking_part) and not changing)
        self.choose_invitation.setEnabled(not changing)
        if not changing:
            with QSignalBlocker(self.toggle):
                self.toggle.setChecked(taking_part)

    def show_key(self, key: str) -> None:
        """Put the public key on the clipboard."""
        QGuiApplication.clipboard().setText(key)

    def _toggled(self, checked: bool) -> None:
        (self.join_wanted if checked else self.leave_wanted).emit()

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:  # noqa: N802
        """Accept one JSON file while an invitation can be imported."""
        if self.choose_invitation.isEnabled() and _dropped_file(event) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:  # noqa: N802
        """Import the invitation that was dropped."""
        path = _dropped_file(event)
        if path is not None:
            event.acceptProposedAction()
            self.invitation_chosen.emit(path)

    def _ask_invitation(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Import an invitation", filter="Invitations (*.json)"
        )
        if path:
            self.invitation_chosen.emit(Path(path))


def _dropped_file(event: QDropEvent) -> Path | None:
    files = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
    return files[0] if len(files) == 1 and files[0].suffix == ".json" else None


def _bytes(count: int) -> str:
    amount = float(count)
    for unit in ("bytes", "kB", "MB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}" if unit != "bytes" else f"{count} bytes"
        amount /= 1000
    return f"{amount:.3g} GB"
