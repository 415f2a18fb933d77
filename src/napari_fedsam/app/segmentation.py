"""Segment one slice of a scan: the scripting interface behind `napari-fedsam segment`."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.annotation.slices import Position, SliceKey
from napari_fedsam.app.structure_choice import chosen_structure
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.window import Window, apply_window, default_window
from napari_fedsam.sam.errors import PromptError
from napari_fedsam.sam.predictor import Predictor
from napari_fedsam.sam.prompts import Box, Prompts

PixelPoint = tuple[float, float]


class SliceOfScan:
    """One slice of a scan as its file stores it, and where its pixels lie on the display.

    The model always sees slices in display orientation, as in the window; prompts come in pixels
    (x, y) of the stored slice: x along its last remaining axis, y along the first.

    Parameters
    ----------
    scan : Scan
    axis : int, optional
        Axis of the stored array (0 = z, 1 = y, 2 = x); the acquired slices' axis by default.
    index : int, optional
        The slice along that axis; the middle one by default.

    Raises
    ------
    PromptError
        When the scan has no such slice.
    """

    def __init__(self, scan: Scan, axis: int | None = None, index: int | None = None) -> None:
        self.scan = scan
        self.axis = scan.slice_axis if axis is None else axis
        if self.axis not in (0, 1, 2):
            raise PromptError(f"A scan has no axis {self.axis}: give 0 (z), 1 (y) or 2 (x).")
        count = scan.shape[self.axis]
        self.index = count // 2 if index is None else index
        if not 0 <= self.index < count:
            raise PromptError(
                f"{scan.source.name} has no slice {self.index} along axis {self.axis}: give 0 to "
                f"{count - 1}."
            )

    @property
    def display_key(self) -> SliceKey:
        """The same slice in the display array."""
        position = self._display_position((0.0, 0.0))
        axis = self.scan.orientation.display_axis(self.axis)
        return SliceKey(axis, round(position[axis]))

    def display_image(self, window: Window | None = None) -> NDArray[np.uint8]:
        """Return the windowed slice in display orientation, (H, W) or (H, W, 3)."""
        pixels = self.display_key.pixels(self.scan.orientation.to_display(self.scan.pixels))
        return apply_window(pixels, window or default_window(self.scan))

    def display_point(self, point: PixelPoint) -> PixelPoint:
        """Return where a pixel (x, y) of the stored slice lies on the display slice.

        Raises
        ------
        PromptError
            When the pixel lies outside the slice.
        """
        rows, columns = (n for i, n in enumerate(self.scan.shape) if i != self.axis)
        if not (-0.5 <= point[0] <= columns - 0.5 and -0.5 <= point[1] <= rows - 0.5):
            raise PromptError(
                f"The point {point[0]:g},{point[1]:g} lies outside the {columns} x {rows} slice "
                f"of {self.scan.source.name}: give x,y in pixels of that slice."
            )
        return self.display_key.locate(np.array(self._display_position(point)))

    def display_box(self, box: Box) -> Box:
        """Return where a box of the stored slice lies on the display slice."""
        rows, columns = (n for i, n in enumerate(self.scan.shape) if i != self.axis)
        inside = (
            float(np.clip(box[0], 0, columns - 1)),
            float(np.clip(box[1], 0, rows - 1)),
            float(np.clip(box[2], 0, columns - 1)),
            float(np.clip(box[3], 0, rows - 1)),
        )
        if box[0] > columns - 1 or box[1] > rows - 1 or box[2] < 0 or box[3] < 0:
            raise PromptError(
                f"The box lies outside the {columns} x {rows} slice of {self.scan.source.name}: "
                "give x0,y0,x1,y1 in pixels of that slice."
            )
        first = self.display_point(inside[:2])
        last = self.display_point(inside[2:])
        (x0, x1), (y0, y1) = sorted((first[0], last[0])), sorted((first[1], last[1]))
        return x0, y0, x1, y1

    def volume_mask(self, display_mask: NDArray[np.bool_], value: int) -> NDArray[np.uint8]:
        """Return a mask (z, y, x) of the scan that holds a display slice's mask."""
        orientation = self.scan.orientation
        volume = np.zeros(self.scan.shape, np.uint8)
        display = orientation.to_display(volume)
        self.display_key.pixels(display)[display_mask] = value
        return volume

    def _display_position(self, point: PixelPoint) -> Position:
        orientation = self.scan.orientation
        rows, columns = (axis for axis in range(3) if axis != self.axis)
        stored = {self.axis: float(self.index), rows: point[1], columns: point[0]}
        position = [
            self.scan.shape[axis] - 1 - stored[axis] if flipped else stored[axis]
            for axis, flipped in zip(orientation.permutation, orientation.flipped, strict=True)
        ]
        return position[0], position[1], position[2]


def segment_slice(
    scan: Scan,
    predictor: Predictor,
    *,
    axis: int | None = None,
    index: int | None = None,
    points: Sequence[tuple[float, float, bool]] = (),
    box: Box | None = None,
    structure: int | None = None,
) -> NDArray[np.uint8]:
    """Segment one slice of a scan.

    Parameters
    ----------
    scan : Scan
        From `imaging.read_scan`.
    predictor : Predictor
        On any model of `sam.load_model`.
    axis, index : int, optional
        Which slice of the stored array (z, y, x); the middle acquired one by default.
    points : sequence of (x, y, positive)
        Clicks in pixels of that slice.
    box : (x0, y0, x1, y1), optional
        In pixels of that slice.
    structure : int, optional
        The structure's value: what a personalised model proposes, and the value written. When it
        is not given, that of the model's only structure, and 1 for a base model.

    Returns
    -------
    uint8 array of shape (z, y, x)
        The mask's value where the structure is, 0 elsewhere.

    Raises
    ------
    PromptError
        When the slice does not exist, a prompt lies outside it, or the model does not have the
        structure.
    """
    value = chosen_structure(predictor, structure).value
    chosen = SliceOfScan(scan, axis, index)
    prompts = Prompts(
        np.array([chosen.display_point((x, y)) for x, y, _ in points], np.float32),
        np.array([positive for *_, positive in points], np.bool_),
        None if box is None else chosen.display_box(Prompts(box=box).box or box),
    )
    embedding = predictor.encode(chosen.display_image())
    mask = predictor.predict(embedding, prompts, structure=value).mask
    return chosen.volume_mask(mask, value)
