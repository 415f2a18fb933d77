"""Shows an invitation in plain words, and has its fingerprint compared before it is imported."""

from qtpy.QtCore import Qt
from qtpy.QtGui import QFontDatabase
from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QLabel,
    QVBoxLayout,
    QWidget,
)

from napari_fedsam.federation.invitation import Invitation
from napari_fedsam.federation.invitation_words import invitation_in_words

_WIDTH = 560


class InvitationDialog(QDialog):
    """What will be shared, with whom and how; 'Import' waits until the fingerprint is compared.

    Parameters
    ----------
    invitation : Invitation
    known : Invitation or None
        The present one to the same federation; one by the same coordinator needs no call.
    beside : str
        Another federation of this machine, "" without one.
    parent : QWidget, optional
    """

    def __init__(
        self,
        invitation: Invitation,
        known: Invitation | None,
        beside: str = "",
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Import an invitation")
        self.setMinimumWidth(_WIDTH)
        self.words = QFormLayout()
        self.words.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
        for heading, text in invitation_in_words(invitation).items():
            self.words.addRow(_heading(heading), _words(text))
        self.fingerprint = _words(invitation.fingerprint)
        self.fingerprint.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self.words.addRow(_heading("Fingerprint"), self.fingerprint)
        self.compared = QCheckBox("The coordinator told me the same fingerprint by telephone")
        standard = QDialogButtonBox.StandardButton
        self.buttons = QDialogButtonBox(standard.Ok | standard.Cancel)
        self.import_button = self.buttons.button(standard.Ok)
        self.import_button.setText("Import")
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addLayout(self.words)
        if beside and known is None:
            layout.addWidget(
                _words(
                    "A further federation of this machine: keys, models and settings of "
                    f"'{beside}' stay as they are."
                )
            )
        if caution := invitation.replaces(known):
            layout.addWidget(_words(caution))
        if known is not None and known.same_coordinator(invitation):
            layout.addWidget(_words("Signed by the coordinator whose invitation is in use here."))
        else:
            self.import_button.setEnabled(False)
            self.compared.toggled.connect(self.import_button.setEnabled)
            layout.addWidget(self.compared)
        layout.addWidget(self.buttons)
        self.adjustSize()


def agree_to_invitation(
    invitation: Invitation,
    known: Invitation | None,
    beside: str = "",
    parent: QWidget | None = None,
) -> bool:
    """Ask whether to import an invitation (see `InvitationDialog`)."""
    dialog = InvitationDialog(invitation, known, beside, parent)
    try:
        return bool(dialog.exec() == QDialog.DialogCode.Accepted)
    finally:
        dialog.deleteLater()


def _heading(text: str) -> QLabel:
    label = QLabel(f"<b>{text}</b>")
    label.setAlignment(Qt.AlignmentFlag.AlignTop)
    return label


def _words(text: str) -> QLabel:
    """Make a label of what came from outside, which is never read as markup."""
    label = QLabel()
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setText(text)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label
