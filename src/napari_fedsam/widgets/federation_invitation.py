"""Shows an invitation in plain words, and has its fingerprint compared before it is imported."""

from html import escape

from qtpy.QtCore import Qt
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
        The one in use; a new one of the same coordinator needs no telephone call.
    parent : QWidget, optional
    """

    def __init__(
        self, invitation: Invitation, known: Invitation | None, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Import an invitation")
        self.setMinimumWidth(_WIDTH)
        self.words = QFormLayout()
        self.words.setRowWrapPolicy(QFormLayout.RowWrapPolicy.DontWrapRows)
        for heading, text in invitation_in_words(invitation).items():
            self.words.addRow(_label(f"<b>{heading}</b>"), _label(escape(text)))
        self.fingerprint = _label(f"<code>{invitation.fingerprint}</code>")
        self.words.addRow(_label("<b>Fingerprint</b>"), self.fingerprint)
        self.compared = QCheckBox("The coordinator told me the same fingerprint by telephone")
        standard = QDialogButtonBox.StandardButton
        self.buttons = QDialogButtonBox(standard.Ok | standard.Cancel)
        self.import_button = self.buttons.button(standard.Ok)
        self.import_button.setText("Import")
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addLayout(self.words)
        if known is not None and known.same_coordinator(invitation):
            layout.addWidget(_label("Signed by the coordinator whose invitation is in use here."))
        else:
            self.import_button.setEnabled(False)
            self.compared.toggled.connect(self.import_button.setEnabled)
            layout.addWidget(self.compared)
        layout.addWidget(self.buttons)


def agree_to_invitation(
    invitation: Invitation, known: Invitation | None, parent: QWidget | None = None
) -> bool:
    """Ask whether to import an invitation."""
    dialog = InvitationDialog(invitation, known, parent)
    try:
        return bool(dialog.exec() == QDialog.DialogCode.Accepted)
    finally:
        dialog.deleteLater()


def _label(text: str) -> QLabel:
    label = QLabel(text)
    label.setWordWrap(not text.startswith("<b>"))
    label.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label
