"""The part of the widget with the prompts, accept, undo and next."""

import functools
from collections.abc import Callable

from qtpy.QtWidgets import QAbstractButton, QCheckBox, QPushButton, QWidget

from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.widgets.keys import KeyTooltips
from napari_fedsam.widgets.prompt_layers import Tool
from napari_fedsam.widgets.section_parts import button, caption, column, row, words

# Rows of buttons under a caption: what is drawn, what to start from, what to do with the answer.
_GROUPS = (
    (
        "Draw",
        (
            (
                ("use_positive_point", "+ Point"),
                ("use_negative_point", "\N{MINUS SIGN} Point"),
                ("use_box", "Box"),
            ),
            (
                ("use_positive_scribble", "+ Scribble"),
                ("use_negative_scribble", "\N{MINUS SIGN} Scribble"),
                ("use_lasso", "Lasso"),
            ),
        ),
    ),
    (
        "Start from a mask",
        (
            (
                ("propose", "Propose"),
                ("use_neighbour", "Neighbour"),
                ("use_layer_mask", "Layer"),
                ("use_file_mask", "File…"),
            ),
        ),
    ),
    (
        "Answer",
        (
            (("touch_up", "Touch up"), ("toggle_preserve", "Spare others"), ("clear", "Clear")),
            (("accept", "Accept"), ("accept_absent", "Absent here")),
            (("undo", "Undo"), ("redo", "Redo"), ("next_slice", "Next slice")),
        ),
    ),
)
_TOOLS = {
    "use_positive_point": Tool.POSITIVE,
    "use_negative_point": Tool.NEGATIVE,
    "use_box": Tool.BOX,
    "use_positive_scribble": Tool.POSITIVE_SCRIBBLE,
    "use_negative_scribble": Tool.NEGATIVE_SCRIBBLE,
    "use_lasso": Tool.LASSO,
    "touch_up": Tool.TOUCH_UP,
}
_CHECKABLE = {*_TOOLS, "toggle_preserve"}


class PromptSection(QWidget):
    """Buttons for every action, with their keys in the tooltips, and a line about the preview.

    Parameters
    ----------
    session : AnnotationSession
    do : callable
        Runs an action by its name.
    """

    def __init__(self, session: AnnotationSession, do: Callable[[str], object]) -> None:
        super().__init__()
        self._session = session
        self.buttons: dict[str, QAbstractButton] = {}
        layout = column(self)
        for title, lines in _GROUPS:
            layout.addWidget(caption(title))
            for actions in lines:
                made = [self._button(name, text, do) for name, text in actions]
                layout.addWidget(row(*made, stretch=made))
        self.auto_propose = QCheckBox("Propose on every slice")
        self.auto_propose.setToolTip("Ask the model for its proposal whenever a new slice is shown")
        self.auto_propose.toggled.connect(self._auto_propose_toggled)
        self.status = words()
        layout.addWidget(self.auto_propose)
        layout.addWidget(self.status)
        self._tooltips = KeyTooltips(self.buttons)
        for signal in (
            session.ask_changed,
            session.model_changed,
            session.preserve_changed,
            session.answering.preview_changed,
            session.view.scan_changed,
        ):
            signal.connect(self.refresh)
        self.refresh()

    def _button(self, name: str, text: str, do: Callable[[str], object]) -> QPushButton:
        made = button(text, functools.partial(do, name), checkable=name in _CHECKABLE)
        self.buttons[name] = made
        return made

    def set_accent(self, color: str) -> None:
        """Give what is done most often, accepting, a colour of its own."""
        self.buttons["accept"].setStyleSheet(
            f"QPushButton:enabled {{background-color: {color}; font-weight: bold;}}"
        )

    def show_tool(self, tool: str) -> None:
        """Press the button of the tool in use."""
        for name, button_tool in _TOOLS.items():
            self.buttons[name].setChecked(button_tool.value == tool)

    def refresh(self) -> None:
        """Enable what can be done and describe the preview."""
        session = self._session
        is_open = session.scan is not None
        for made in self.buttons.values():
            made.setEnabled(is_open)
        self.buttons["toggle_preserve"].setChecked(session.preserve_others)
        self.buttons["propose"].setEnabled(is_open and session.can_propose)
        self.auto_propose.setEnabled(is_open and session.can_propose)
        self.status.setText(self._describe())

    def close_section(self) -> None:
        """Let go of napari."""
        self._tooltips.close()

    def _describe(self) -> str:
        session = self._session
        if session.scan is None:
            return "Open a scan, or choose its layer, to begin."
        preview = session.preview
        if preview is None:
            return f"Click on the {session.view.structure.name}, or draw a box around it."
        pixels = int(preview.mask.sum())
        down, right = session.view.slice.in_plane
        spacing = session.scan.orientation.display_spacing
        area = f"{pixels} px"
        if session.scan.spacing_known:
            area = f"{pixels * spacing[down] * spacing[right]:.4g} mm²"
        return f"Preview: {area}, predicted overlap {min(1.0, max(0.0, preview.score)):.2f}"

    def _auto_propose_toggled(self, checked: bool) -> None:
        self._session.auto_propose = checked
