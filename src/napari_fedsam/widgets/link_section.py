"""The part of the widget that links the open scans by a crosshair."""

from collections.abc import Callable, Sequence

from qtpy.QtWidgets import QWidget

from napari_fedsam.widgets.keys import KeyTooltips
from napari_fedsam.widgets.section_parts import button, column, row, words


class LinkSection(QWidget):
    """Two switches, and what is linked.

    Parameters
    ----------
    do : callable
        Runs an action of `keys.ACTIONS`.

    Attributes
    ----------
    buttons : dict of str to QPushButton
        By action.
    state : QLabel
        What is linked, and why something is not.
    """

    def __init__(self, do: Callable[[str], None]) -> None:
        super().__init__()
        self.buttons = {
            "toggle_link": button("Crosshair", lambda: do("toggle_link"), checkable=True),
            "toggle_side_by_side": button(
                "Side by side", lambda: do("toggle_side_by_side"), checkable=True
            ),
            "switch_scan": button("Next open", lambda: do("switch_scan")),
        }
        self.state = words()
        self.state.hide()
        layout = column(self)
        layout.addWidget(row(*self.buttons.values()))
        layout.addWidget(self.state)
        self._tooltips = KeyTooltips(dict(self.buttons))

    def show_switches(self, *, is_linked: bool, is_side_by_side: bool) -> None:
        """Show which switches are on."""
        self.buttons["toggle_link"].setChecked(is_linked)
        self.buttons["toggle_side_by_side"].setChecked(is_side_by_side)

    def show_state(self, sentences: Sequence[str]) -> None:
        """Say what is linked, a line each; nothing hides the text."""
        self.state.setText("\n".join(sentences))
        self.state.setVisible(bool(sentences))

    def close_section(self) -> None:
        """Stop following the keys."""
        self._tooltips.close()
