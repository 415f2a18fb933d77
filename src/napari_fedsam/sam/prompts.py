"""What a person gives the model: points, a box, a mask, or nothing at all."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.sam.errors import PromptError

Box = tuple[float, float, float, float]


def _no_points() -> NDArray[np.float32]:
    return np.zeros((0, 2), np.float32)


def _no_labels() -> NDArray[np.bool_]:
    return np.zeros(0, np.bool_)


@dataclass(frozen=True, eq=False)
class Prompts:
    """The prompts of one structure on one image.

    Coordinates are pixels of the image given to the predictor, x to the right and y down, with
    pixel centres at integers; they may be fractional.

    Parameters
    ----------
    points : float32 array of shape (n, 2)
        Clicks as (x, y).
    labels : bool array of shape (n,)
        True for a positive click, False for a negative one.
    box : (x0, y0, x1, y1) or None
        A box with x0 <= x1 and y0 <= y1.
    mask : bool array of shape (H, W) or None
        An existing mask that the prediction starts from.

    Raises
    ------
    PromptError
        When shapes disagree, a coordinate is not finite, or the box is inside out.
    """

    points: NDArray[np.float32] = field(default_factory=_no_points)
    labels: NDArray[np.bool_] = field(default_factory=_no_labels)
    box: Box | None = None
    mask: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        points = np.asarray(self.points, np.float32)
        if points.size == 0:
            points = _no_points()
        if points.ndim != 2 or points.shape[1] != 2:
            raise PromptError(f"Points of shape {points.shape} were given: give (n, 2), as x,y.")
        labels = np.asarray(self.labels, np.bool_).reshape(-1)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "labels", labels)
        if len(points) != len(labels):
            raise PromptError(
                f"{len(points)} points came with {len(labels)} labels: give one label per point."
            )
        if not np.isfinite(points).all():
            raise PromptError("A point has a coordinate that is not a number: click again.")
        if self.box is not None:
            if len(self.box) != 4:
                raise PromptError(f"The box {self.box} has not four numbers: give x0,y0,x1,y1.")
            x0, y0, x1, y1 = self.box
            if not (np.isfinite(self.box).all() and x0 <= x1 and y0 <= y1):
                raise PromptError(
                    f"The box {self.box} is inside out: give x0,y0,x1,y1 with x0 <= x1, y0 <= y1."
                )

    @classmethod
    def none(cls) -> Self:
        """Return the empty prompt, which asks for a proposal."""
        return cls()

    @property
    def is_empty(self) -> bool:
        """Whether the model is asked for a proposal without any help."""
        return len(self.points) == 0 and self.box is None and self.mask is None

    @property
    def positives(self) -> NDArray[np.float32]:
        """Positive clicks, shape (n, 2)."""
        return self.points[self.labels]

    @property
    def negatives(self) -> NDArray[np.float32]:
        """Negative clicks, shape (n, 2)."""
        return self.points[~self.labels]

    def check_within(self, shape: tuple[int, int]) -> None:
        """Refuse prompts that lie outside an image of shape (H, W).

        Raises
        ------
        PromptError
            Naming the point or box and the size of the image.
        """
        height, width = shape
        for x, y in self.points:
            if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                raise PromptError(
                    f"The point ({x:g}, {y:g}) lies outside the {width} x {height} slice: "
                    "give x,y in pixels of that slice."
                )
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if x1 < 0 or y1 < 0 or x0 > width - 1 or y0 > height - 1:
                raise PromptError(
                    f"The box {x0:g},{y0:g},{x1:g},{y1:g} lies outside the {width} x {height} "
                    "slice: give x0,y0,x1,y1 in pixels of that slice."
                )
        if self.mask is not None and self.mask.shape != shape:
            raise PromptError(
                f"The mask prompt has shape {self.mask.shape}, the slice {shape}: use a mask "
                "of this very slice."
            )


def box_of_mask(mask: NDArray[np.bool_]) -> Box | None:
    """Return the tight bounding box (x0, y0, x1, y1) of a mask, or None when it is empty.

    Parameters
    ----------
    mask : bool array of shape (H, W)
    """
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1]), float(rows[-1])


def deepest_point(mask: NDArray[np.bool_]) -> tuple[float, float] | None:
    """Return the pixel (x, y) deepest inside a mask's largest component, or None when empty.

    "Deepest" is the greatest Euclidean distance to the background, the image border counting as
    background; ties go to the first pixel in row order. This is where a careful person clicks.

    Parameters
    ----------
    mask : bool array of shape (H, W)
    """
    from scipy import ndimage

    components, count = ndimage.label(mask)
    if count == 0:
        return None
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    largest = np.pad(components == sizes.argmax(), 1)
    depth = ndimage.distance_transform_edt(largest)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(x), float(y)


def clicked_pixels(
    points: NDArray[np.float32], shape: tuple[int, ...]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows and columns of an image of shape (H, W) that points (x, y) lie on."""
    height, width = shape
    columns = np.clip(np.rint(points[:, 0]).astype(np.intp), 0, width - 1)
    rows = np.clip(np.rint(points[:, 1]).astype(np.intp), 0, height - 1)
    return rows, columns
