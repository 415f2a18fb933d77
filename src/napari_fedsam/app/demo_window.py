"""The demo's window: a real napari with the plugin docked, driven by a script or by a person."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_fedsam.app.demo_sites import DemoPlan, WindowTask
from napari_fedsam.errors import FedSamError
from napari_fedsam.sam.prompts import deepest_point
from napari_fedsam.training.metrics import dice

if TYPE_CHECKING:
    from napari import Viewer

    from napari_fedsam.widgets.dock import FedSamWidget

_WINDOW_SIZE = (1500, 1200)


class DemoTimeoutError(FedSamError):
    """A step of the demo did not come to its end."""


def open_window(site_folder: Path, *, show: bool) -> "tuple[Viewer, FedSamWidget]":
    """Open napari with the plugin docked for a site's folder."""
    import napari

    from napari_fedsam.widgets.dock import FedSamWidget

    viewer = napari.Viewer(title="napari-fedsam demo", show=show)
    widget = FedSamWidget(viewer, site_folder)
    viewer.window.add_dock_widget(widget, name="napari-fedsam", area="right")
    return viewer, widget


class ScriptedWindow:
    """A window that a script uses as a person would, with a screenshot of every stage.

    Parameters
    ----------
    plan : DemoPlan
    out : Path
        Where the screenshots go.
    """

    def __init__(self, plan: DemoPlan, out: Path) -> None:
        from qtpy.QtWidgets import QApplication

        self._plan = plan
        self._out = out
        self._shots = 0
        self.viewer, self.widget = open_window(plan.sites[0].folder, show=True)
        self.viewer.window._qt_window.resize(*_WINDOW_SIZE)
        self._events: Callable[[], Any] = QApplication.processEvents

    def close(self) -> None:
        """Close the window, which leaves the federation."""
        self.widget.shut_down()
        self.viewer.close()
        self._events()

    def wait(self, done: Callable[[], bool], what: str, *, seconds: float) -> None:
        """Keep the window alive until something has come true.

        Raises
        ------
        DemoTimeoutError
            When it has not within `seconds`.
        """
        end = time.monotonic() + seconds
        while not done():
            self._events()
            time.sleep(0.02)
            if time.monotonic() > end:
                raise DemoTimeoutError(f"The demo waited {seconds:g} s for {what} in vain.")
        self._events()

    def screenshot(self, stage: str, *, federation: bool = False) -> None:
        """Save what the window shows as `NN-stage.png`, scrolled to the federation if wanted."""
        self._shots += 1
        self._events()
        shown = self.widget.federation_section if federation else self.widget.scan_section
        self.widget.scroll_to(shown)
        self._events()
        path = self._out / f"{self._shots:02d}-{stage}.png"
        self.viewer.screenshot(str(path), canvas_only=False, flash=False)

    def annotate(self) -> list[dict[str, object]]:
        """Click, look, correct by hand and accept, on every slice that is to be done here.

        Returns
        -------
        list of dict
            For each slice the Dice of the one-click preview against the reference.
        """
        done: list[dict[str, object]] = []
        for number, task in enumerate(self._plan.tasks):
            self._show(task)
            if number == 0:
                self.screenshot("scan-opened")
            preview = self._click(task)
            if number == 0:
                self.screenshot("one-click")
            self._correct_and_accept(task)
            if number == 0:
                self.screenshot("accepted")
            done.append({"slice": task.slice_index, "dice_one_click": dice(preview, task.mask)})
        return done

    def propose(self, task: WindowTask) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Ask for a proposal on a slice and return it, shape (H, W)."""
        self._show(task)
        self.widget.propose()
        self._idle()
        preview = self.widget.session.preview
        if preview is None:
            raise DemoTimeoutError("The model made no proposal.")
        return np.asarray(preview.mask)

    def _show(self, task: WindowTask) -> None:
        """Open the scan if it is not open, and go to the slice."""
        scan = self.widget.session.scan
        if scan is None or scan.source.name != task.scan.name:
            self.viewer.layers.clear()
            self._idle()
            self.widget.open_scan(task.scan)
            self._idle()
        self.widget.set_structure(self._plan.recipe.structures[0])
        self.widget.session.view.show_slice(0, task.slice_index)
        self._idle()

    def _click(self, task: WindowTask) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        point = deepest_point(task.mask)
        if point is None:
            return np.zeros_like(task.mask)
        self.widget.session.add_click(*point)
        self._idle()
        preview = self.widget.session.preview
        return np.zeros_like(task.mask) if preview is None else np.asarray(preview.mask)

    def _correct_and_accept(self, task: WindowTask) -> None:
        """Drop the prompts, paint the reference and accept it: a correction by hand."""
        self.widget.clear()
        self._idle()
        session = self.widget.session
        indices = session.view.slice.volume_indices(task.mask)
        self.widget.segmentation_layer.data_setitem(indices, self._plan.recipe.structures[0].value)
        kept = len(self.widget.store.records())
        self.widget.accept()
        self.wait(lambda: len(self.widget.store.records()) > kept, "the case", seconds=30)
        self._idle()

    def _idle(self) -> None:
        self._events()
        self.wait(lambda: self.widget.idle, "the model", seconds=180)
