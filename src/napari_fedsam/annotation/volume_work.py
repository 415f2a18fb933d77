"""Propagation and interpolation of a session as work that runs in any thread."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_fedsam.annotation.ask import Ask
from napari_fedsam.annotation.errors import AnnotationError
from napari_fedsam.annotation.interpolation import interpolated
from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.propagation import Limits, Look, Propagation
from napari_fedsam.annotation.session import AnnotationSession
from napari_fedsam.annotation.slices import SliceKey
from napari_fedsam.annotation.work import Place
from napari_fedsam.cases.case import Structure
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.window import Window, apply_window
from napari_fedsam.sam.prediction import ImageEmbedding

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FoundMasks:
    """Masks for slices of one structure, and where and why propagation stopped."""

    scan: Scan
    axis: int
    structure: int
    masks: dict[int, Mask]
    stops: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PropagationWork:
    """Propagate a structure from all its slices of one plane that the person prompted or accepted.

    A slice on which the person asked for the model's proposal counts as prompted; one that got it
    by itself does not.
    """

    scan: Scan
    axis: int
    structure: Structure
    model: ModelInUse
    window: Window
    display: NDArray[np.generic]
    seeds: Mapping[int, Mask | Ask]
    limits: Limits
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def slice_count(self) -> int:
        """How many slices are filled, at most."""
        return self.limits.last - self.limits.first + 1

    def run(self, progress: Callable[[int], None]) -> FoundMasks:
        """Propagate (slow); what was found before `cancelled` was set is kept."""
        steps = Propagation(
            self.model.predictor,
            self._encode,
            self.seeds,
            self.limits,
            structure=self.model.structure_for(self.structure),
            look=lambda index, mask: Look.of(self._windowed(index), mask),
        ).run()
        masks: dict[int, Mask] = {}
        stops = []
        for count, found in enumerate(steps, start=1):
            if found.mask is not None:
                masks[found.index] = found.mask
            else:
                stops.append(f"slice {found.index + 1}: {found.why}")
            progress(count)
            if self.cancelled.is_set():
                break
        return FoundMasks(self.scan, self.axis, self.structure.value, masks, tuple(stops))

    def _encode(self, index: int) -> ImageEmbedding:
        return self.model.encode(self._windowed(index))

    def _windowed(self, index: int) -> NDArray[np.uint8]:
        return apply_window(SliceKey(self.axis, index).pixels(self.display), self.window)


def propagation_of(session: AnnotationSession, limits: Limits) -> PropagationWork:
    """Return the propagation of the chosen structure in the plane on screen.

    Raises
    ------
    AnnotationError
        When there is no model, or no slice to start from.
    """
    view, model, scan = session.view, session.model, session.scan
    if scan is None or model is None:
        raise AnnotationError("There is nothing to propagate: open a scan and wait for the model.")
    place = view.place
    seeds: dict[int, Mask | Ask] = dict(_accepted(session))
    seeds |= {
        each.slice.index: ask for each, ask in session.asks.items() if _is_beside(each, place)
    }
    painted = place.slice.pixels(session.segmentation) == place.structure
    if place.slice.index not in seeds and painted.any():
        seeds[place.slice.index] = painted
    if not any(isinstance(seed, Ask) or seed.any() for seed in seeds.values()):
        raise AnnotationError(
            f"There is no slice with {view.structure.name} to start from: click on it, draw a box "
            "around it, or accept a proposal, on one slice."
        )
    return PropagationWork(
        scan, place.slice.axis, view.structure, model, view.window, view.display, seeds, limits
    )


def interpolation_of(session: AnnotationSession, limits: Limits) -> Callable[[], FoundMasks]:
    """Return a job that fills the slices between accepted ones.

    Raises
    ------
    AnnotationError
        When fewer than two slices with the structure are accepted.
    """
    view, scan = session.view, session.scan
    accepted = dict(_accepted(session))
    if scan is None or sum(bool(mask.any()) for mask in accepted.values()) < 2:
        raise AnnotationError(
            f"Interpolation needs two slices on which {view.structure.name} was accepted: accept "
            "it on another slice first."
        )
    place = view.place
    down, right = place.slice.in_plane
    steps = scan.orientation.display_spacing

    def run() -> FoundMasks:
        between = interpolated(accepted, (steps[down], steps[right]))
        masks = {
            index: mask for index, mask in between.items() if limits.first <= index <= limits.last
        }
        return FoundMasks(scan, place.slice.axis, place.structure, masks)

    return run


def _accepted(session: AnnotationSession) -> list[tuple[int, Mask]]:
    """Return the accepted slices with their masks as they are now, painting included."""
    place = session.view.place
    return [
        (each.slice.index, each.slice.pixels(session.segmentation) == each.structure)
        for each in session.acceptances
        if _is_beside(each, place)
    ]


def _is_beside(each: Place, place: Place) -> bool:
    return (each.slice.axis, each.structure) == (place.slice.axis, place.structure)
