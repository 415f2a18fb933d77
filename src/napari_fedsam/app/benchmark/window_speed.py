"""What a person at the window waits for: click to pixels, and stalls of the GUI thread."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.app.demo_window import open_window
from napari_fedsam.errors import FedSamError

if TYPE_CHECKING:
    from pathlib import Path

    from napari_fedsam.imaging.scan import Scan

_BEAT_MS = 2
_WAIT_SECONDS = 120
_SCROLL_MS = 80
_AT_ONCE_MS = 30
"""Between the cursor's arrival and a click: too short for anything to be computed ahead."""


class WindowBenchmarkError(FedSamError):
    """The window did not answer."""


class Watchdog:
    """A timer in the GUI thread that notes how late it is each time (ms)."""

    def __init__(self) -> None:
        from qtpy.QtCore import Qt, QTimer

        self.stalls: list[float] = []
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._beat)
        self._last = 0.0

    def _beat(self) -> None:
        now = time.perf_counter()
        self.stalls.append(max(0.0, (now - self._last) * 1e3 - _BEAT_MS))
        self._last = now

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block lasts."""
        self._last = time.perf_counter()
        self._timer.start(_BEAT_MS)
        try:
            yield
        finally:
            self._timer.stop()


def stall_excess(ours: list[float], bare: list[float]) -> dict[str, float]:
    """Return by how much (ms) our stalls exceed bare napari's: 99th percentile and longest."""
    return {
        "p99": round(max(0.0, float(np.percentile(ours, 99) - np.percentile(bare, 99))), 2),
        "max": round(max(0.0, max(ours) - max(bare)), 2),
    }


def run_events(milliseconds: float) -> None:
    """Let the window live for a while."""
    from qtpy.QtCore import QEventLoop, QTimer

    loop = QEventLoop()
    QTimer.singleShot(int(milliseconds), loop.quit)
    loop.exec()


def wait_until(done: Callable[[], bool], what: str) -> None:
    """Let the window live until something has come true.

    Raises
    ------
    WindowBenchmarkError
        When it has not within two minutes.
    """
    end = time.monotonic() + _WAIT_SECONDS
    while not done():
        run_events(5)
        if time.monotonic() > end:
            raise WindowBenchmarkError(f"The benchmark waited for {what} in vain: try it again.")


def bare_scrolling(scan: "Scan", slices: int) -> list[float]:
    """Return the stalls of a napari without the plugin while it scrolls through a scan."""
    import napari

    from napari_fedsam.widgets.layers import image_layer_data

    viewer = napari.Viewer(title="bare napari", show=True)
    try:
        data, options, _ = image_layer_data(scan)
        viewer.add_image(data, **options)
        run_events(500)
        return _scroll(viewer, slices, each=lambda: None)
    finally:
        viewer.close()


def _scroll(viewer: Any, slices: int, each: Callable[[], None]) -> list[float]:
    """Go through slices around the middle one and return the stalls."""
    watchdog = Watchdog()
    axis = viewer.dims.order[0]
    middle = int(viewer.dims.nsteps[axis]) // 2
    with watchdog.watching():
        for step in range(slices):
            viewer.dims.set_current_step(axis, middle - slices // 2 + step)
            run_events(_SCROLL_MS)
            each()
    return watchdog.stalls


class MeasuredWindow:
    """A real napari window with the plugin and a scan, which a script clicks on.

    Parameters
    ----------
    scan : Scan
    site_folder : Path
        A new folder for the cases.
    """

    def __init__(self, scan: "Scan", site_folder: "Path") -> None:
        from qtpy.QtCore import QEventLoop

        from napari_fedsam.widgets.layers import image_layer_data

        self.viewer, self.widget = open_window(site_folder, show=True)
        self._drawn = 0
        self._answered_at = -1
        self._waiting = QEventLoop()
        self.widget.session.answering.preview_changed.connect(self._note_answer)
        canvas = self.viewer.window._qt_viewer.canvas
        self._canvas = canvas.native
        canvas._scene_canvas.events.draw.connect(self._note_drawing, position="last")
        data, options, _ = image_layer_data(scan)
        self.viewer.add_image(data, **options)
        self.rest()

    def _note_drawing(self, _: Any) -> None:
        self._drawn += 1
        if self._answer_is_drawn:
            self._waiting.quit()

    def _note_answer(self) -> None:
        self._answered_at = self._drawn

    @property
    def _answer_is_drawn(self) -> bool:
        """Whether the canvas was drawn after the preview layer took the answer."""
        answered = self.widget.session.answering.is_current
        return answered and -1 < self._answered_at < self._drawn

    def _wait_for_drawing(self) -> None:
        """Wait as a person does: the window sleeps between events and leaves the processors be."""
        from qtpy.QtCore import QTimer

        # Stopped afterwards, or it would cut a later wait short.
        patience = QTimer()
        patience.setSingleShot(True)
        patience.timeout.connect(self._waiting.quit)
        patience.start(_WAIT_SECONDS * 1000)
        if not self._answer_is_drawn:
            self._waiting.exec()
        patience.stop()
        if not self._answer_is_drawn:
            raise WindowBenchmarkError("A click was not answered: look at the window.")

    def rest(self) -> None:
        """Wait until nothing runs in the background."""
        run_events(1)
        wait_until(lambda: self.widget.idle, "the model")

    def click_to_pixels(self, x: float, y: float, rest_ms: float = _AT_ONCE_MS) -> float:
        """Click at a pixel of the slice; return the time (ms) until the answer is drawn.

        Parameters
        ----------
        x, y : float
        rest_ms : float
            How long the cursor has been there before.
        """
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        where = self._position(x, y)
        QTest.mouseMove(self._canvas, where)
        run_events(rest_ms)
        self._answered_at = -1
        start = time.perf_counter()
        QTest.mouseClick(self._canvas, Qt.MouseButton.LeftButton, pos=where)
        self._wait_for_drawing()
        taken = (time.perf_counter() - start) * 1e3
        self.widget.clear()
        self.rest()
        return taken

    def _position(self, x: float, y: float) -> Any:
        """Return where a pixel of the slice is on the canvas."""
        from qtpy.QtCore import QPoint

        view = self.widget.session.view
        down, right = view.slice.in_plane
        place = view.slice.place(x, y)
        spacing = view.scan.orientation.display_spacing  # type: ignore[union-attr]
        # napari 0.9 keeps the camera in a scene.
        camera, size = getattr(self.viewer, "scene", self.viewer).camera, self._canvas.size()
        dx, dy = (
            (place[axis] * spacing[axis] - camera.center[centre]) * camera.zoom
            for axis, centre in ((right, -1), (down, -2))
        )
        return QPoint(round(size.width() / 2 + dx), round(size.height() / 2 + dy))

    def clicks(self, points: NDArray[np.float64], rest_ms: float = _AT_ONCE_MS) -> list[float]:
        """Click at points (n, 2), one after the other, each on a slice without prompts."""
        self.widget.use_positive_point()
        self.rest()
        return [self.click_to_pixels(x, y, rest_ms) for x, y in points]

    def scroll_and_click(self, slices: int, point: tuple[float, float]) -> list[float]:
        """Scroll, and now and then click and accept; return the GUI thread's stalls (ms)."""
        self.widget.use_positive_point()
        passed = 0

        def each() -> None:
            nonlocal passed
            passed += 1
            if passed % 10 == 0:
                self.widget.session.add_click(*point)
            if passed % 10 == 5 and self.widget.session.answering.is_current:
                self.widget.accept()

        stalls = _scroll(self.viewer, slices, each)
        self.rest()
        return stalls

    def close(self) -> None:
        """Close the window."""
        self.widget.shut_down()
        self.viewer.close()
        run_events(1)
