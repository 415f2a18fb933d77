"""How many prompts a whole volume takes a simulated person who propagates."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from napari_fedsam.annotation.ask import Ask, Click
from napari_fedsam.annotation.model_in_use import ModelInUse
from napari_fedsam.annotation.propagation import Limits
from napari_fedsam.annotation.volume_work import PropagationWork
from napari_fedsam.cases.case import Structure
from napari_fedsam.errors import FedSamError
from napari_fedsam.imaging.readers import read_mask, read_scan
from napari_fedsam.imaging.scan import Scan
from napari_fedsam.imaging.window import Window, default_window
from napari_fedsam.sam.prompts import box_of_mask
from napari_fedsam.training.click_simulation import next_click

Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Step:
    """The volume after a prompt.

    Attributes
    ----------
    prompts : int
        Prompts so far.
    kind : {"box", "click", "absent"}
        The newest one; `absent` says that the structure is not on its slice.
    slice : int
        Where it was given, from 1.
    slices_prompted : int
        Slices with a prompt so far.
    dice : float
        Of the whole volume.
    """

    prompts: int
    kind: str
    slice: int
    slices_prompted: int
    dice: float


class SimulatedAnnotator:
    """Prompts the slice with most wrong voxels, propagates, and looks again.

    The first prompt is a box on the slice where the structure is largest. On a slice without a
    prompt it draws the structure's box, or says that it is absent; on one with a box it clicks.

    Parameters
    ----------
    scan : Scan
    truth : bool array
        Shape (z, y, x) of the scan.
    model : ModelInUse
    structure : Structure
        Of the model.
    window : Window
    """

    def __init__(
        self, scan: Scan, truth: Masks, model: ModelInUse, structure: Structure, window: Window
    ) -> None:
        self._scan = scan
        self._model = model
        self._structure = structure
        self._window = window
        self._axis = scan.orientation.display_axis(scan.slice_axis)
        self._display = scan.orientation.to_display(scan.pixels)
        self._truth = np.moveaxis(scan.orientation.to_display(truth), self._axis, 0)
        self._seeds: dict[int, Masks | Ask] = {}

    def steps(self, target: float, most: int) -> Iterator[Step]:
        """Yield the volume after each prompt, until its Dice is reached or so many were given."""
        index = int(self._truth.sum(axis=(1, 2)).argmax())
        found = np.zeros_like(self._truth)
        for prompts in range(1, most + 1):
            kind = self._prompt(index, found[index])
            found = self._propagate()
            dice = _dice(found, self._truth)
            yield Step(prompts, kind, index + 1, len(self._seeds), dice)
            if dice >= target:
                return
            index = int((found ^ self._truth).sum(axis=(1, 2)).argmax())

    def _prompt(self, index: int, found: Masks) -> str:
        truth, seed = self._truth[index], self._seeds.get(index)
        box = box_of_mask(truth)
        if box is None:
            self._seeds[index] = truth
            return "absent"
        click = next_click(found, truth)
        if not isinstance(seed, Ask) or click is None:
            self._seeds[index] = Ask(boxes=(box,))
            return "box"
        self._seeds[index] = seed.with_correction(Click(click.x, click.y, click.positive))
        return "click"

    def _propagate(self) -> Masks:
        work = PropagationWork(
            self._scan,
            self._axis,
            self._structure,
            self._model,
            self._window,
            self._display,
            self._seeds,
            Limits(0, len(self._truth) - 1),
        )
        volume = np.zeros_like(self._truth)
        for index, mask in work.run(lambda _: None).masks.items():
            volume[index] = mask
        return volume


def count_prompts(
    scan: Path,
    mask: Path,
    model: ModelInUse,
    structure: Structure,
    window: Window | None,
    *,
    target: float,
    most: int,
) -> list[Step]:
    """Let a simulated annotator segment a volume (see `SimulatedAnnotator`).

    Raises
    ------
    FedSamError
        When the scan is a picture, or the mask is empty.
    """
    opened = read_scan(scan)
    truth = read_mask(mask, opened) > 0
    if opened.is_picture or not truth.any():
        raise FedSamError("Propagation needs a volume and a mask that is not empty: give another.")
    window = window or default_window(opened)
    annotator = SimulatedAnnotator(opened, truth, model, structure, window)
    return list(annotator.steps(target, most))


def table_of(steps: list[Step]) -> Table:
    """Return the steps as a table for people."""
    table = Table("prompts", "the newest", "slice", "slices prompted", "Dice")
    for step in steps:
        counts = str(step.slice), str(step.slices_prompted)
        table.add_row(str(step.prompts), step.kind, *counts, f"{step.dice:.3f}")
    return table


def _dice(found: Masks, truth: Masks) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))
