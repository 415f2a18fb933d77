"""Keyboard keys of the annotation widget, through napari's action manager.

napari ignores key bindings in a plugin's manifest, so the actions are registered here: they are
listed and can be changed in napari's preferences, and the keys work while a widget is open. The
single letters chosen are free in napari's viewer and in every kind of layer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from napari.components import ViewerModel
from napari.settings import get_settings
from napari.utils.action_manager import action_manager
from napari.utils.interactions import Shortcut

if TYPE_CHECKING:
    from qtpy.QtWidgets import QAbstractButton

    from napari_fedsam.widgets.dock import FedSamWidget

PREFIX = "napari-fedsam"


@dataclass(frozen=True)
class KeyAction:
    """One thing that a key and a button do.

    Attributes
    ----------
    name : str
        The widget's method, or several actions' common method and what it is called with, such as
        "choose_structure:3".
    description : str
        What it does, for tooltips and napari's preferences.
    key : str
        The key it has until the person chooses another.
    is_held : bool
        Whether it lasts while the key is held: the method is told True, then False.
    """

    name: str
    description: str
    key: str
    is_held: bool = False

    @property
    def call(self) -> tuple[str, tuple[int, ...]]:
        """The widget's method and its arguments."""
        method, _, argument = self.name.partition(":")
        return method, (int(argument),) if argument else ()

    @property
    def id(self) -> str:
        """The action manager's name for it."""
        return f"{PREFIX}:{self.name.replace(':', '_')}"


ACTIONS = (
    KeyAction("use_positive_point", "Click what belongs to the structure", "W"),
    KeyAction("use_negative_point", "Click what does not belong to it", "Q"),
    KeyAction("use_box", "Draw a box around an object", "G"),
    KeyAction("use_positive_scribble", "Scribble over what belongs to the structure", "Shift-W"),
    KeyAction("use_negative_scribble", "Scribble over what does not belong to it", "Shift-Q"),
    KeyAction("use_lasso", "Draw an outline around an object", "Shift-G"),
    KeyAction("hover", "While held: show what a click under the cursor would give", ",", True),
    KeyAction("touch_up", "Paint and erase on the answer with napari's brush", "J"),
    KeyAction("use_neighbour", "Start from the mask of the neighbouring slice", "Shift-H"),
    KeyAction(
        "use_layer_mask", "Start from the selected Labels layer, else the segmentation", "Shift-Y"
    ),
    KeyAction("use_file_mask", "Start from a mask in a file", "Alt-Y"),
    KeyAction("propose", "Let the model propose the structure without a prompt", "H"),
    KeyAction("accept", "Accept the mask and keep it as a case", "K"),
    KeyAction("accept_absent", "Accept that the structure is absent on this slice", "Shift-K"),
    KeyAction("undo", "Take back the last step: prompt, paint or accept", "U"),
    KeyAction("redo", "Do again what was taken back", "Shift-U"),
    KeyAction("clear", "Remove all prompts from this slice", "Alt-U"),
    KeyAction("toggle_preserve", "Spare other structures, or overwrite them", "Shift-B"),
    KeyAction("propagate", "Carry the structure through the volume in both directions", "Alt-J"),
    KeyAction("interpolate", "Fill the slices between accepted ones", "Alt-K"),
    KeyAction("cancel_volume", "Stop propagation and keep what it has found", "Shift-J"),
    KeyAction("fill_holes", "Fill the holes of the structure's volume", "Alt-G"),
    KeyAction("largest_component", "Keep the largest part of the structure's volume", "Alt-Q"),
    KeyAction("smooth", "Smooth the structure's surface", "Alt-B"),
    KeyAction("save_session", "Save prompts, masks and structures as one file", "Alt-S"),
    KeyAction("open_session", "Go on with a saved session", "Alt-O"),
    KeyAction("show_keys", "List all keys; so does ?", "Alt-/"),
    KeyAction(
        "drag_window",
        "While held: the mouse changes width (across) and level (up, down)",
        ".",
        True,
    ),
    KeyAction("toggle_link", "Link the open scans by a crosshair, or stop that", "Shift-X"),
    KeyAction("move_crosshair", "While held: the crosshair follows the cursor", "/", True),
    KeyAction("toggle_side_by_side", "Show the linked scans beside the canvas", "Shift-C"),
    KeyAction("switch_scan", "Annotate the next of the open scans", "Alt-X"),
    KeyAction("next_slice", "Go to the next slice", "N"),
    KeyAction("previous_slice", "Go to the previous slice", "Shift-N"),
    KeyAction("scan_done", "Flag the scan of the worklist as done and open the next", "Shift-D"),
    KeyAction("skip_scan", "Skip the scan of the worklist and open the next", "Shift-S"),
    KeyAction("scan_unsure", "Flag the scan of the worklist as unsure, open the next", "Shift-M"),
    KeyAction("next_scan", "Open the next scan of the worklist, without a flag", "Alt-N"),
    *(
        KeyAction(
            f"choose_structure:{place}", f"Segment structure {place} of the list", f"Alt-{place}"
        )
        for place in range(1, 10)
    ),
)

ACTION_CALLS = {action.name: action.call for action in ACTIONS}

_widgets: WeakValueDictionary[int, "FedSamWidget"] = WeakValueDictionary()


def bind_keys(viewer: ViewerModel, widget: "FedSamWidget") -> None:
    """Give a viewer's widget its keys."""
    first = not _widgets
    _widgets[id(viewer)] = widget
    if not first:
        return
    chosen = get_settings().shortcuts.shortcuts
    for action in ACTIONS:
        action_manager.register_action(
            name=action.id,
            command=_command(action),
            description=action.description,
            keymapprovider=ViewerModel,
        )
        for key in chosen.get(action.id, [action.key]):
            action_manager.bind_shortcut(action.id, key)


def unbind_keys(viewer: ViewerModel) -> None:
    """Take a viewer's widget off the keys; the last one unbinds them."""
    if _widgets.pop(id(viewer), None) is not None and not _widgets:
        for action in ACTIONS:
            action_manager.unbind_shortcut(action.id)


def _command(action: KeyAction) -> Callable[..., Any]:
    def do(viewer: ViewerModel, *more: bool) -> None:
        widget = _widgets.get(id(viewer))
        if widget is not None:
            widget.do(action.name, *more)

    def press(viewer: ViewerModel) -> None:
        do(viewer)

    def hold(viewer: ViewerModel) -> Iterator[None]:
        do(viewer, True)
        yield
        do(viewer, False)

    command = hold if action.is_held else press
    command.__name__ = f"napari_fedsam_{action.name.replace(':', '_')}"
    return command


def shown_keys(action: KeyAction) -> str:
    """Return the keys that an action has now, for people; "" when it has none."""
    keys = action_manager._shortcuts.get(action.id) or ()
    return " or ".join(str(Shortcut(key)) for key in keys)


def tooltip(action: KeyAction) -> str:
    """Return an action's description with the keys it has now."""
    shown = shown_keys(action)
    return f"{action.description} ({shown})" if shown else action.description


class KeyTooltips:
    """Keeps the tooltips of buttons in step with the keys, which the person may change."""

    def __init__(self, buttons: dict[str, "QAbstractButton"]) -> None:
        self._buttons = buttons
        self.refresh()
        action_manager.events.shortcut_changed.connect(self.refresh)

    def refresh(self) -> None:
        """Write the tooltips."""
        for action in ACTIONS:
            if action.name in self._buttons:
                self._buttons[action.name].setToolTip(tooltip(action))

    def close(self) -> None:
        """Stop listening."""
        action_manager.events.shortcut_changed.disconnect(self.refresh)
