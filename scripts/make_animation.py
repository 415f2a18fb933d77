"""Make the animated picture of README.md, `python scripts/make_animation.py` on a display.

A real window on the embedded sample: a click, the answer, a correcting click, accepting, and the
next slice from the mask of this one. Mouse and keys are real events; only the arrow is drawn, as a
screenshot has none.
"""

import tempfile
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_fedsam.app.demo_window import open_window
from napari_fedsam.cases.case import Structure

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "annotating.gif"
SIZE = (1180, 800)
LONGEST_BYTES = 1_500_000
CAPTION = 38
SHORTEST = 60
"""How long a frame of the moving arrow is shown, in ms."""
STEPS = 6
"""Frames in which the arrow crosses the window."""

STRUCTURE = Structure(value=1, name="cerebellum", color="#56b4e9")
SLICE = 59
RIGHT, LEFT = (28, 72), (52, 72)
"""Pixels within the hemispheres of the cerebellum on this slice."""

ARROW = ((0, 0), (0, 20), (5, 15), (9, 23), (12, 21), (9, 14), (16, 14))


class Film:
    """A window, an arrow on it, and the frames taken so far."""

    def __init__(self, site: Path) -> None:
        self.viewer, self.widget = open_window(site, show=True)
        self._window: Any = self.viewer.window._qt_window
        self._canvas: Any = self.viewer.window._qt_viewer.canvas.native
        self._window.resize(*SIZE)
        self._arrow = QPoint(SIZE[0] // 2, SIZE[1] - 60)
        self._font = ImageFont.load_default(20)
        self.frames: list[tuple[Image.Image, int]] = []

    def wait(self) -> None:
        """Let the window finish what it is doing."""
        QTest.qWait(50)
        while not self.widget.idle:
            QTest.qWait(20)
        QTest.qWait(50)

    def take(self, caption: str, milliseconds: int) -> None:
        """Take a frame that is shown for a while."""
        shot = Image.fromarray(self.viewer.screenshot(canvas_only=False, flash=False))
        frame = Image.new("RGB", (shot.width, shot.height + CAPTION), "black")
        frame.paste(shot.convert("RGB"), (0, 0))
        pen = ImageDraw.Draw(frame)
        points = [(self._arrow.x() + x, self._arrow.y() + y) for x, y in ARROW]
        pen.polygon(points, fill="white", outline="black")
        middle = (frame.width / 2, shot.height + CAPTION / 2)
        pen.text(middle, caption, fill="white", font=self._font, anchor="mm")
        self.frames.append((frame, milliseconds))

    def click(self, pixel: tuple[float, float], before: str) -> None:
        """Move the arrow to a pixel of the slice and click there."""
        place = self._place(*pixel)
        start, end = self._arrow, self._canvas.mapTo(self._window, place)
        for step in range(1, STEPS + 1):
            self._arrow = start + (end - start) * (step / STEPS)
            self.take(before, 700 if step == STEPS else SHORTEST)
        QTest.mouseMove(self._canvas, place)
        QTest.mouseClick(self._canvas, Qt.MouseButton.LeftButton, pos=place)
        self.wait()

    def press(
        self, key: Qt.Key, modifier: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier
    ) -> None:
        """Press a key on the canvas."""
        QTest.keyClick(self._canvas, key, modifier)
        self.wait()

    def _place(self, x: float, y: float) -> QPoint:
        """Return where a pixel of the slice is on the canvas."""
        spacing = self.widget.session.view.scan.orientation.display_spacing
        camera = self.viewer.scene.camera
        return QPoint(
            round(self._canvas.width() / 2 + (x * spacing[2] - camera.center[-1]) * camera.zoom),
            round(self._canvas.height() / 2 + (y * spacing[1] - camera.center[-2]) * camera.zoom),
        )

    def save(self, path: Path) -> None:
        """Write the frames with one palette, as large changes of colours would flicker."""
        looked_at = [frame for frame, milliseconds in self.frames if milliseconds > SHORTEST]
        width, height = looked_at[0].size
        all_colours = Image.new("RGB", (width, height * len(looked_at)))
        for place, frame in enumerate(looked_at):
            all_colours.paste(frame, (0, place * height))
        palette = all_colours.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        pictures = [
            frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame, _ in self.frames
        ]
        durations = [milliseconds for _, milliseconds in self.frames]
        pictures[0].save(
            path, save_all=True, append_images=pictures[1:], duration=durations, loop=0
        )

    def close(self) -> None:
        """Close the window."""
        self.widget.shut_down()
        self.viewer.close()


def play(film: Film) -> None:
    """Open the sample and outline the cerebellum on two slices."""
    view = film.widget.session.view
    film.take("napari with the plugin", 900)
    film.viewer.open_sample("napari-fedsam", "icbm152_t1")
    film.wait()
    view.offer_structures((STRUCTURE,))
    view.show_slice(0, SLICE)
    film.widget.scroll_to(film.widget.prompt_section)
    film.viewer.reset_view()
    film.wait()
    film.take("Open a scan, name the structure: cerebellum", 1500)
    film.click(RIGHT, "Click on it")
    film.take("The outline is the model's answer: not all of it yet", 1800)
    film.click(LEFT, "Click on what is missing")
    film.take("Two clicks: both hemispheres", 1800)
    film.press(Qt.Key.Key_K)
    film.take("K accepts the mask and keeps it as a case for training", 1800)
    film.press(Qt.Key.Key_N)
    film.take("N goes to the next slice", 1200)
    film.press(Qt.Key.Key_H, Qt.KeyboardModifier.ShiftModifier)
    film.take("Shift+H starts from the mask of the slice before", 2500)


def main() -> None:
    """Make the picture."""
    with tempfile.TemporaryDirectory() as folder:
        film = Film(Path(folder))
        film.wait()
        play(film)
        film.save(PICTURE)
        film.close()
    size = PICTURE.stat().st_size
    if size > LONGEST_BYTES:
        raise SystemExit(f"{PICTURE.name} has {size} bytes: take fewer frames.")


if __name__ == "__main__":
    main()
