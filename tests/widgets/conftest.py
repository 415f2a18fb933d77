"""A real napari window with the widget docked, and hands to use it."""

import itertools
import os
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.model_source import ModelSource
from napari_fedsam.imaging.geometry import Geometry
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.sam.registry import load_model
from napari_fedsam.widgets.dock import FedSamWidget
from napari_fedsam.widgets.layers import image_layer_data

WAIT_MS = 60_000


def pytest_collection_modifyitems(items) -> None:
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        skip = pytest.mark.skip(reason="a window needs a display: run under xvfb-run")
        for item in items:
            if item.get_closest_marker("window"):
                item.add_marker(skip)


class RememberingPredictor(Predictor):
    """Encodes each picture once for all tests: they look at the same slices again and again."""

    def __init__(self, model) -> None:
        super().__init__(model)
        self._known = {}

    def encode(self, image, between=None):
        key = image.shape, image.tobytes()
        if key not in self._known:
            self._known[key] = super().encode(image, between)
        return self._known[key]


@cache
def base_model() -> ModelInUse:
    """LiteMedSAM, loaded once for all tests."""
    return ModelInUse(RememberingPredictor(load_model("lite_medsam")), "LiteMedSAM")


@pytest.fixture
def quick_base_model(monkeypatch):
    """Do not read the embedded checkpoint anew in every test."""
    load = ModelSource.load

    def quick(self, choice="site", *, progress=None):
        if choice == "lite_medsam":
            return base_model()
        return load(self, choice, progress=progress)

    monkeypatch.setattr(ModelSource, "load", quick)


@pytest.fixture
def told(monkeypatch):
    """What the widget tells the person in notifications."""
    messages = []
    monkeypatch.setattr("napari_fedsam.widgets.dock.show_info", messages.append)
    monkeypatch.setattr("napari_fedsam.widgets.dock.show_error", messages.append)
    monkeypatch.setattr("napari_fedsam.widgets.scan_opening.show_error", messages.append)
    return messages


@pytest.fixture
def viewer(make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    viewer.window._qt_window.resize(900, 650)
    return viewer


class Hands:
    """What a person does with mouse and keyboard; waits until the widget has reacted."""

    def __init__(self, widget, qtbot) -> None:
        self.widget = widget
        self.viewer = widget.viewer
        self.qtbot = qtbot

    @property
    def canvas(self):
        return self.viewer.window._qt_viewer.canvas.native

    def rest(self) -> None:
        """Wait until nothing runs in the background."""
        QTest.qWait(1)
        self.qtbot.waitUntil(lambda: self.widget.idle, timeout=WAIT_MS)
        QTest.qWait(1)

    def move(self, place: QPoint) -> None:
        """Move the mouse to a place on the canvas, until napari has seen it there.

        What comes within 10 ms of the move before is left out; a real mouse tells more than once.
        """
        none, local = Qt.MouseButton.NoButton, place.toPointF()
        seen = []

        def see(_viewer, _event):
            seen.append(True)

        def moved() -> bool:
            event = QMouseEvent(
                QEvent.Type.MouseMove,
                local,
                self.canvas.mapToGlobal(local),
                none,
                none,
                Qt.KeyboardModifier.NoModifier,
            )
            QApplication.sendEvent(self.canvas, event)
            return bool(seen)

        self.viewer.mouse_move_callbacks.append(see)
        try:
            self.qtbot.waitUntil(moved, timeout=WAIT_MS)
        finally:
            self.viewer.mouse_move_callbacks.remove(see)
        self.rest()

    def pixel(self, x: float, y: float) -> QPoint:
        """Where a pixel of the slice is on the canvas."""
        view = self.widget.session.view
        down, right = view.slice.in_plane
        position = np.array(view.slice.place(x, y))
        world = position * view.scan.orientation.display_spacing
        camera = self.viewer.scene.camera
        size = self.canvas.size()
        return QPoint(
            round(size.width() / 2 + (world[right] - camera.center[-1]) * camera.zoom),
            round(size.height() / 2 + (world[down] - camera.center[-2]) * camera.zoom),
        )

    def click(self, x: float, y: float) -> None:
        where = self.pixel(x, y)
        QTest.mouseMove(self.canvas, where)
        QTest.mouseClick(self.canvas, Qt.MouseButton.LeftButton, pos=where)
        self.rest()

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        first, last = self.pixel(*start), self.pixel(*end)
        button = Qt.MouseButton.LeftButton
        QTest.mouseMove(self.canvas, first)
        QTest.mousePress(self.canvas, button, pos=first)
        for step in (0.3, 0.7, 1.0):
            QTest.mouseMove(self.canvas, first + (last - first) * step)
            QTest.qWait(1)
        QTest.mouseRelease(self.canvas, button, pos=last)
        self.rest()

    def press(self, key: str) -> None:
        """Press a key such as "K", "Shift+K" or "Alt+3" with the focus on the canvas."""
        *modifiers, letter = key.split("+")
        modifier = Qt.KeyboardModifier.NoModifier
        for each in modifiers:
            modifier |= getattr(Qt.KeyboardModifier, f"{each}Modifier")
        QTest.keyClick(self.canvas, getattr(Qt.Key, f"Key_{letter}"), modifier)
        self.rest()

    def draw(self, *path: tuple[float, float]) -> None:
        """Drag along a path."""
        points = [self.pixel(*point) for point in path]
        button = Qt.MouseButton.LeftButton
        QTest.mouseMove(self.canvas, points[0])
        QTest.mousePress(self.canvas, button, pos=points[0])
        for first, last in itertools.pairwise(points):
            for step in (0.25, 0.5, 0.75, 1.0):
                QTest.mouseMove(self.canvas, first + (last - first) * step)
                QTest.qWait(1)
        QTest.mouseRelease(self.canvas, button, pos=points[-1])
        self.rest()

    def push(self, name: str) -> None:
        """Push a button of the prompt section with the mouse."""
        button = self.widget.prompt_section.buttons[name]
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        self.rest()


@pytest.fixture
def make_widget(viewer, tmp_path, quick_base_model, qtbot):
    def make(site=None) -> FedSamWidget:
        widget = FedSamWidget(viewer, site or tmp_path / "site")
        viewer.window.add_dock_widget(widget, name="napari-fedsam")
        qtbot.waitUntil(lambda: widget.idle, timeout=WAIT_MS)
        return widget

    return make


@pytest.fixture
def widget(make_widget) -> FedSamWidget:
    return make_widget()


@pytest.fixture
def hands(widget, qtbot) -> Hands:
    return Hands(widget, qtbot)


@pytest.fixture
def hands_of(qtbot):
    return lambda widget: Hands(widget, qtbot)


def ball_scan(*, name: str = "ball", seed: int = 0) -> Scan:
    """A bright ball in noise: an anisotropic MR whose slices run from superior to inferior."""
    z, y, x = np.mgrid[:12, :64, :64]
    inside = ((z - 6) * 3) ** 2 + (y - 30) ** 2 + (x - 34) ** 2 < 14**2
    noise = np.random.default_rng(seed).normal(100, 8, inside.shape)
    pixels = np.where(inside, 300, noise).astype(np.int16)
    geometry = Geometry((64, 64, 12), (1.0, 1.0, 3.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, -1))
    return Scan(pixels, geometry, name, Path(f"{name}.nii"), modality="MR", patient_key="P-1")


@pytest.fixture
def new_ball():
    return ball_scan


@pytest.fixture
def ball(hands):
    """The ball, open in the widget."""
    scan = ball_scan()
    data, options, _ = image_layer_data(scan)
    hands.viewer.add_image(data, **options)
    hands.rest()
    return scan
